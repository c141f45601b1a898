"""`async-jobs cancel` and `requeue`: what becomes of the job, what is said, the exit code."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import psycopg
from command_line import UNREACHABLE, Ended, run

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


def test_cancelling_a_pending_job_ends_it_at_once(database: str) -> None:
    job_id = stored(database, "pending")

    ended = ask("cancel", str(job_id), dsn=database)

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
