"""`async-jobs cancel` and `requeue`: what becomes of the job, what is said, the exit code."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import psycopg
from command_line import UNREACHABLE, Ended, run

from async_jobs.cli.jobs import listed
from async_jobs.models import Page

JOB = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at, due,
        status, attempts, leased_at, lease_expires_at, finished_at
    )
    SELECT gen_random_uuid(), 'acme', 'notifications', 'send', 'notifications', '{}', now(),
        interval '10 s', now() + interval '10 s', status = 'pending', status,
        (status <> 'pending')::int, CASE WHEN status = 'running' THEN now() END,
        CASE WHEN status = 'running' THEN now() + interval '1 hour' END,
        CASE WHEN status = 'dead' THEN now() END
    FROM (SELECT %s AS status) AS made
    RETURNING id
"""


def stored(database: str, status: str) -> UUID:
    with psycopg.connect(database) as conn:
        [[job_id]] = conn.execute(JOB, [status]).fetchall()
    assert isinstance(job_id, UUID)
    return job_id


def ask(*words: str, dsn: str) -> Ended:
    return run("main", *words, env={"ASYNC_JOBS_DB_DSN": dsn}, patience_seconds=20)


def test_cancelling_a_pending_job_ends_it_at_once_and_may_be_repeated(database: str) -> None:
    job_id = stored(database, "pending")

    for ended in [ask("cancel", str(job_id), dsn=database) for _ in range(2)]:
        assert ended.code == 0, ended.said
        assert f"Job {job_id} is cancelled: it will not run." in ended.lines


def test_cancelling_a_running_job_says_that_its_worker_will_end_it(database: str) -> None:
    job_id = stored(database, "running")

    ended = ask("cancel", str(job_id), dsn=database)

    assert ended.code == 0, ended.said
    assert f"Job {job_id} runs; its worker ends it at its next heartbeat." in ended.lines


def test_requeueing_gives_as_many_attempts_as_asked_and_json_is_the_apis(database: str) -> None:
    job_id = stored(database, "dead")

    ended = ask("requeue", str(job_id), "--attempts", "5", "--json", dsn=database)

    assert ended.code == 0, ended.said
    [line] = [each for each in ended.lines if each.startswith("{")]
    told = json.loads(line)
    assert (told["id"], told["status"]) == (str(job_id), "pending")
    assert (told["attempts"], told["max_attempts"]) == (1, 6)


def test_what_cannot_be_done_is_one_line_and_exit_code_1(database: str) -> None:
    dead, nobody = stored(database, "dead"), uuid4()

    refused = ask("cancel", str(dead), dsn=database)
    unknown = ask("requeue", str(nobody), dsn=database)

    assert (refused.code, unknown.code) == (1, 1)
    assert refused.lines == [f"error: Cannot cancel job {dead}: it is dead."]
    assert unknown.lines == [f"error: There is no job {nobody}."]


def test_an_id_that_is_none_is_exit_code_2() -> None:
    assert ask("cancel", "7", dsn=UNREACHABLE).code == 2


def test_a_job_is_enqueued_listed_shown_and_explained(database: str) -> None:
    made = ask("enqueue", "notifications", "send", '{"to": "ada"}', "--json", dsn=database)
    job_id = json.loads(made.said)["job_id"]

    listed = ask("list", "--use-case", "notifications", dsn=database)
    shown = ask("show", job_id, dsn=database)
    explained = ask("explain", job_id, dsn=database)
    as_json = ask("explain", job_id, "--json", dsn=database)

    assert listed.lines[0].startswith(f"id={job_id} status=pending tenant_id=default")
    assert 'payload: {"to": "ada"}' in shown.lines
    assert explained.lines[0] == f"Job {job_id} is waiting."
    assert explained.lines[1].startswith("- No scheduler for notifications")
    assert json.loads(as_json.said)["causes"][0]["code"] == "no_scheduler"


def test_a_list_that_looked_far_says_so_and_where_to_go_on() -> None:
    place = uuid4()

    assert listed(Page([], None)) == []
    assert listed(Page([], place, 20_000)) == [
        "Looked through 20,000 jobs; there may be more further on.",
        f"next_cursor={place}",
    ]


def test_a_payload_that_is_no_json_is_an_error(database: str) -> None:
    ended = ask("enqueue", "notifications", "send", "{to: ada}", dsn=database)

    assert ended.code == 1
    assert "payload" in ended.said
    assert "ada" not in ended.said


def test_what_operators_set_is_told_and_written_down(database: str) -> None:
    paused = ask("pause", "notifications", dsn=database)
    scaled = ask("scale", "notifications", "80", "--json", dsn=database)
    quota = ask("quota", "acme", "--weight", "2", dsn=database)
    audit = ask("audit", dsn=database)

    assert paused.said == "notifications is paused.\n"
    assert json.loads(scaled.said) == {"changed": True}
    assert "weight=2.0" in quota.said
    assert [line.partition("move=")[2].partition(" ")[0] for line in audit.lines] == [
        "quota",
        "scale",
        "pause",
    ]


def test_a_scale_needs_a_capacity_or_a_reset(database: str) -> None:
    assert ask("scale", "notifications", dsn=database).code == 2
