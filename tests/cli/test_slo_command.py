"""`async-jobs slo`: what it prints where."""

from __future__ import annotations

import json
import signal

import psycopg
from command_line import UNREACHABLE, read_until, rest, run, start

from async_jobs.cli.slo import HEADINGS, TENANT_HEADINGS

WAITING = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at, due
    )
    SELECT gen_random_uuid(), 'acme', 'notifications', 'send', 'notifications', '{}', t.at,
        interval '10 s', t.at + interval '10 s', true
    FROM (SELECT now() - interval '1 hour' AS at) AS t, generate_series(1, 5)
"""


def test_each_use_case_is_a_line_that_programs_can_read(database: str) -> None:
    with psycopg.connect(database) as conn:
        conn.execute(WAITING)

    ended = run("slo", "--tenants", env={"ASYNC_JOBS_DB_DSN": database}, patience_seconds=20)

    assert ended.code == 0, ended.said
    assert len(ended.lines) == 3
    first = dict(part.split("=") for part in ended.lines[0].split())
    assert list(first) == [heading.replace(" ", "_") for heading in HEADINGS]
    assert (first["use_case"], first["late_now"], first["target"]) == (
        "notifications",
        "5",
        "99.0%",
    )
    tenant = dict(part.split("=") for part in ended.lines[2].split())
    assert list(tenant) == [heading.replace(" ", "_") for heading in TENANT_HEADINGS]
    assert (tenant["tenant"], tenant["held"], tenant["share"]) == ("acme", "0", "10.0")


def test_json_is_what_the_api_answers(database: str) -> None:
    ended = run(
        "slo", "notifications", "--json", env={"ASYNC_JOBS_DB_DSN": database}, patience_seconds=20
    )

    [told] = json.loads(ended.said)["use_cases"]
    assert (told["use_case"], told["capacity"], told["late_now"]) == ("notifications", 10, 0)


def test_watching_goes_on_until_it_is_stopped(database: str) -> None:
    process = start("slo", "--watch", "--json", env={"ASYNC_JOBS_DB_DSN": database})
    read_until(process, "use_cases")
    read_until(process, "use_cases")
    process.send_signal(signal.SIGINT)

    assert rest(process).code == 0


def test_an_unknown_use_case_is_an_error() -> None:
    ended = run("slo", "nothing", env={"ASYNC_JOBS_DB_DSN": UNREACHABLE})

    assert ended.code == 1
