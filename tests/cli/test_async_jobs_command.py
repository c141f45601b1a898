"""The `async-jobs` command: what it offers, how it refuses, how its API process behaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2
import psycopg
import pytest

from async_jobs.ddl import get_ddl

TOKEN = "the-token-of-the-tests"
COMMANDS = [
    *("dev", "scheduler", "worker", "api", "dashboard", "migrate", "simulate", "top"),
    *("slo", "autoscaling", "health"),
    *("list", "show", "explain", "enqueue", "cancel", "requeue"),
    *("pause", "resume", "scale", "quota", "prune", "processes", "stop"),
    *("audit", "doctor", "config"),
]
PATIENCE_SECONDS = 90


def environment(**variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ASYNC_JOBS_")}
    return own | {"COLUMNS": "100"} | variables


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "async_jobs.cli.main", *words],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@contextmanager
def running_api(*words: str, env: Mapping[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """An API process that is ready, and its address; it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "async_jobs.cli.main", "api", "--port", "0", *words],
        env=environment(**env),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        seen = ""
        while not (found := re.search(r"ready: (http://\S+)", seen)):
            line = process.stderr.readline()
            assert line, f"the process ended: {seen}"
            seen += line
        yield found.group(1), process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)


def test_the_help_lists_every_command_with_a_line() -> None:
    done = run("--help")

    listed = re.findall(r"^  (\w+)  +\S", done.stdout, re.MULTILINE)
    assert listed == COMMANDS
    assert not re.search(r"\.\.\.$", done.stdout.partition("Commands:")[2], re.MULTILINE)


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from async_jobs.cli import main; "
        "print({'fastapi', 'psycopg', 'pydantic', 'boto3', 'httpx2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "command", ["scheduler", "worker", "api", "migrate", "simulate", "slo", "config"]
)
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")

    assert done.returncode == 0
    assert f"Usage: async-jobs {command}" in done.stdout


@pytest.mark.parametrize("words", [["bogus"], ["api", "--prt", "5"], ["migrate", "x"]])
def test_a_command_line_that_is_wrong_ends_with_2(words: list[str]) -> None:
    done = run(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_migrate_prints_the_schema_without_a_database() -> None:
    done = run("migrate", "--sql")

    assert done.stdout == get_ddl()


def test_migrate_checks_without_changing_and_then_creates_the_schema(
    database: str,
) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DROP TABLE jobs CASCADE")
        before = run("migrate", "--check", ASYNC_JOBS_DB_DSN=database)
        made = run("migrate", ASYNC_JOBS_DB_DSN=database)
        after = run("migrate", "--check", ASYNC_JOBS_DB_DSN=database)
        found = conn.execute("SELECT count(*) FROM jobs").fetchone()

    assert before.returncode == 1
    assert "async-jobs migrate" in before.stderr
    assert (made.returncode, after.returncode) == (0, 0)
    assert found == (0,)


@pytest.mark.parametrize(
    ("words", "variables", "remedy"),
    [
        ([], {}, "--no-auth"),
        ([], {"ASYNC_JOBS_ENQUEUE_AUTH_TOKEN": "  "}, "--no-auth"),
        (["--no-auth", "--host", "0.0.0.0"], {}, "ASYNC_JOBS_ENQUEUE_AUTH_TOKEN"),  # noqa: S104
    ],
)
def test_an_api_that_anybody_could_call_does_not_start(
    words: list[str], variables: dict[str, str], remedy: str
) -> None:
    dsn = "postgresql://nobody@127.0.0.1:1/none"
    done = run("api", *words, ASYNC_JOBS_DB_DSN=dsn, **variables)

    assert done.returncode == 2
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


def test_an_api_without_a_schema_does_not_start_and_says_what_to_run(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DROP TABLE jobs CASCADE")
    done = run("api", "--port", "0", ASYNC_JOBS_DB_DSN=database, ASYNC_JOBS_ENQUEUE_AUTH_TOKEN="x")

    assert done.returncode == 1
    assert "async-jobs migrate" in done.stderr


@pytest.mark.slow
def test_the_api_process_serves_and_stops_politely(database: str) -> None:
    env = {"ASYNC_JOBS_DB_DSN": database, "ASYNC_JOBS_ENQUEUE_AUTH_TOKEN": TOKEN}
    with running_api("--init-db", env=env) as (place, process):
        refused = httpx2.get(f"{place}/jobs/")
        listed = httpx2.get(f"{place}/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
        health = httpx2.get(f"{place}/healthz")
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=PATIENCE_SECONDS)

    assert (refused.status_code, listed.status_code, health.status_code) == (401, 200, 200)
    assert code == 0


@pytest.mark.slow
def test_the_api_process_asks_for_nothing_with_no_auth(database: str) -> None:
    with running_api("--no-auth", env={"ASYNC_JOBS_DB_DSN": database}) as (place, _):
        answer = httpx2.get(f"{place}/jobs/")

    assert answer.status_code == 200
