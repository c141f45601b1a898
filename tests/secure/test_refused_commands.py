"""A command whose user may not do what it does says so in a sentence, with what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from command_line import variables
from psycopg.conninfo import make_conninfo

from async_jobs.cli.main import COMMANDS

from .conftest import PASSWORD

ALL_IN_ONE_PROCESS = """
import contextlib, io, json, sys, traceback
from async_jobs.cli.command import run_command
from async_jobs.cli.main import function_of

ended = []
for name, *words in json.load(sys.stdin):
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run_command(function_of(name), f"async-jobs {name}", words)
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc(file=said)
            code = -1
    ended.append([code, said.getvalue()])
print(json.dumps(ended))
"""
PENDING, DEAD = str(uuid4()), str(uuid4())
JOBS = """
    INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
        deadline_at, due, status, finished_at)
    SELECT id, 'acme', 'notifications', 'send', 'notifications', '{}', now(), interval '1 min',
        now() + interval '1 min', status = 'pending', status,
        CASE WHEN status = 'dead' THEN now() - interval '1 day' END
    FROM unnest(%s::uuid[], '{pending,dead}'::text[]) AS made (id, status)
"""
READER = f"""
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'reader') THEN
            CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
        END IF;
    END $$;
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
    INSERT INTO jobs_processes (name, role, version, started_at, seen_at, serves)
        VALUES ('worker-1', 'worker', '1', now(), now(), '{{}}')
"""
WRITING = {
    "async_jobs_api": ["enqueue notifications send"],
    "async_jobs_operator": [
        *(f"cancel {PENDING}", f"requeue {DEAD}", "pause notifications", "resume notifications"),
        *("scale notifications 7", "quota acme --weight 2", "stop worker-1"),
    ],
    "async_jobs_operator and async_jobs_scheduler": ["prune --older-than 1h --yes"],
    "owner": ["migrate", "scheduler --init-db", "worker --queue notifications --init-db"],
}
READING = [
    *("list", f"show {DEAD}", f"explain {PENDING}", "slo", "top --once", "autoscaling"),
    *("processes", "audit", "migrate --check", "prune --older-than 1h --dry-run"),
]
NO_WRITER = {"dev", "simulate", "health", "config", "doctor"}
SERVING = {"api", "dashboard"}


@pytest.fixture
def reader_dsn(owner_dsn: str) -> str:
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        owner.execute(READER.encode())
        owner.execute(JOBS, [[PENDING, DEAD]])
    return make_conninfo(owner_dsn, user="reader", password=PASSWORD)


def ask(dsn: str, commands: list[str]) -> list[tuple[int, str]]:
    """How each command ended and what it said; in one process, which loads all of it once."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE_PROCESS],
        input=json.dumps([command.split() for command in commands]),
        capture_output=True,
        text=True,
        env=variables({"ASYNC_JOBS_DB_DSN": dsn, "ASYNC_JOBS_HANDLERS_MODULE": "flow_handlers"}),
        timeout=100,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout)
    return [(code, said) for code, said in found]


@pytest.mark.slow
def test_every_command_that_may_not_write_says_so_in_a_sentence(
    reader_dsn: str, owner_dsn: str
) -> None:
    wanted = [(command, needed) for needed, commands in WRITING.items() for command in commands]
    for (command, needed), (code, said) in zip(
        wanted, ask(reader_dsn, [command for command, _ in wanted]), strict=True
    ):
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) == (1, 1), (command, said)
        assert "Traceback" not in said
        assert needed in lines[0], command
        assert "denied" in lines[0]
        assert PASSWORD not in said
    with psycopg.connect(owner_dsn) as owner:
        assert owner.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
        assert owner.execute("SELECT count(*) FROM jobs_audit").fetchone() == (0,)


@pytest.mark.slow
def test_every_command_that_reads_needs_no_right_to_write(reader_dsn: str) -> None:
    for command, (code, said) in zip(READING, ask(reader_dsn, READING), strict=True):
        assert code == 0, (command, said)


def test_every_command_is_looked_at() -> None:
    commands = [command for each in WRITING.values() for command in each] + READING
    seen = {command.split()[0] for command in commands}

    assert seen | NO_WRITER | SERVING == set(COMMANDS)
