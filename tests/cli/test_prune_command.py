"""`async-jobs prune`: what goes, what stays, that it asks, and what it writes down."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import psycopg
import pytest
from command_line import Ended, run, variables
from typer.testing import CliRunner

from async_jobs.cli import prune
from async_jobs.cli.command import new_app

FINISHED = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at, due,
        status, attempts, finished_at
    )
    SELECT gen_random_uuid(), 'acme', %(use_case)s, 'send', 'q', '{}', at, interval '10 s',
        at + interval '10 s', false, %(status)s, 1, at
    FROM (SELECT now() - make_interval(days => %(days)s) AS at) AS t,
        generate_series(1, %(jobs)s)
"""
LEFT = "SELECT use_case, status, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"


def fill(database: str, *made: tuple[str, str, int, int]) -> None:
    """Finished jobs: use case, status, age in days, how many."""
    with psycopg.connect(database) as conn:
        for use_case, status, days, jobs in made:
            asked = {"use_case": use_case, "status": status, "days": days, "jobs": jobs}
            conn.execute(FINISHED, asked)


def left(database: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as conn:
        return conn.execute(LEFT).fetchall()


def audited(database: str) -> list[tuple[str, str, dict[str, Any]]]:
    sql = "SELECT move, use_case, after FROM jobs_audit ORDER BY id"
    with psycopg.connect(database) as conn:
        return conn.execute(sql).fetchall()


def ask(*words: str, dsn: str) -> Ended:
    return run("main", "prune", *words, env={"ASYNC_JOBS_DB_DSN": dsn}, patience_seconds=20)


def test_old_jobs_of_a_status_go_in_batches_and_are_written_down(database: str) -> None:
    fill(
        database,
        ("notifications", "succeeded", 40, 2_500),
        ("notifications", "dead", 40, 3),
        ("notifications", "succeeded", 10, 4),
        ("gone", "succeeded", 40, 5),
    )

    ended = ask("--older-than", "30d", "--status", "succeeded", "--yes", dsn=database)

    assert (ended.code, ended.lines) == (
        0,
        ["use_case=notifications succeeded=2500", "Deleted 2500 of 2500 jobs."],
    )
    assert left(database) == [
        ("gone", "succeeded", 5),
        ("notifications", "dead", 3),
        ("notifications", "succeeded", 4),
    ]
    asked = {"older_than_seconds": 2_592_000.0, "statuses": ["succeeded"]}
    assert audited(database) == [
        ("prune", "notifications", {**asked, "expected": 2_500}),
        ("prune", "notifications", {**asked, "deleted": 2_500}),
    ]


def test_a_dry_run_counts_and_deletes_nothing(database: str) -> None:
    fill(database, ("gone", "succeeded", 40, 5), ("gone", "dead", 40, 2))

    ended = ask("--older-than", "86400", "--use-case", "gone", "--dry-run", "--json", dsn=database)

    told = json.loads(ended.lines[-1])
    assert told["found"] == {"gone": {"succeeded": 5, "dead": 2}}
    assert (ended.code, told["deleted"], len(left(database))) == (0, 0, 2)
    assert audited(database) == []


def test_with_nothing_that_old_it_says_so() -> None:
    assert prune.counted({"mail": Counter()}) == ["No finished job is that old."]


@pytest.mark.parametrize("words", [["--older-than", "30x", "--yes"], ["--older-than", "30d"], []])
def test_what_is_not_said_or_cannot_be_asked_is_exit_code_2(words: list[str]) -> None:
    app = new_app()
    app.command()(prune.prune)

    assert CliRunner().invoke(app, words).exit_code == 2


@pytest.mark.parametrize(("answer", "code", "stay"), [(b"y\n", 0, 0), (b"\n", 1, 5), (None, 1, 5)])
def test_on_a_terminal_it_asks_and_only_yes_is_yes(
    database: str, answer: bytes | None, code: int, stay: int
) -> None:
    fill(database, ("notifications", "dead", 40, 5))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "async_jobs.cli.main", "prune", "--older-than", "30d"]
    env = variables({"ASYNC_JOBS_DB_DSN": database})
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    os.close(theirs)
    try:
        assert process.stderr is not None
        assert process.stderr.read(29) == b"Delete 5 finished jobs? [y/N]"
        if answer is None:
            process.send_signal(signal.SIGINT)
        else:
            os.write(ours, answer)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
        os.close(ours)

    assert process.returncode == code
    assert f"Deleted {5 - stay} of 5 jobs." in said.decode()
    assert sum(jobs for _, _, jobs in left(database)) == stay


def test_the_age_counts_from_the_beginning_however_long_it_takes() -> None:
    asked = prune.Asked((), ["dead"], 60.0, began_at=prune.time.monotonic() - 1_000.0)

    assert 1_060.0 <= asked.retention_seconds < 1_100.0
