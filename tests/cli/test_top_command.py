"""`async-jobs top`: what it prints where, that it outlives its database, how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import psycopg
import pytest
from command_line import UNREACHABLE, read_until, rest, run, start, variables
from psycopg.conninfo import conninfo_to_dict

WAITING = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at, due
    )
    SELECT gen_random_uuid(), 'acme', 'notifications', 'send', 'notifications', '{}', t.at,
        interval '10 s', t.at + interval '10 s', true
    FROM (SELECT now() - interval '1 hour' AS at) AS t, generate_series(1, 5)
"""
PATIENCE_SECONDS = 90.0


def test_once_and_piped_it_prints_plain_lines(database: str) -> None:
    with psycopg.connect(database) as conn:
        conn.execute(WAITING)

    ended = run("top", "--once", env={"ASYNC_JOBS_DB_DSN": database}, patience_seconds=20)

    assert ended.code == 0, ended.said
    first = dict(part.split("=") for part in ended.lines[0].split())
    assert (first["use_case"], first["waiting"], first["late"]) == ("notifications", "5", "5")
    assert 3_590 < float(first["oldest_due"].removesuffix("s")) < 3_700
    assert ended.lines[-1].endswith("schedulers=0 workers=0 gone=0")


def test_a_sample_as_json_is_one_line(database: str) -> None:
    ended = run(
        "top",
        "notifications",
        "--once",
        "--json",
        env={"ASYNC_JOBS_DB_DSN": database},
        patience_seconds=20,
    )

    [line] = ended.lines
    [told] = json.loads(line)["use_cases"]
    assert (told["use_case"], told["waiting"], told["capacity"]) == ("notifications", 0, 10)
    assert told["slack"][0] == {"label": "late", "jobs": 0, "cut": False}


@pytest.mark.own_session
def test_it_goes_on_while_the_database_is_away_and_ends_with_0(
    database: str, postgres_admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    name = str(conninfo_to_dict(database)["dbname"])

    def admit(whether: bool) -> None:
        wanted = "true" if whether else "false"
        postgres_admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {wanted}".encode())

    process = start("top", "--json", "--every-seconds", "0.1", env={"ASYNC_JOBS_DB_DSN": database})
    read_until(process, '"use_case": "notifications"')
    admit(False)
    postgres_admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
    )
    read_until(process, '"error": "no answer"')
    admit(True)
    read_until(process, '"use_case": "notifications"')
    process.send_signal(signal.SIGINT)

    assert rest(process).code == 0


def test_once_without_a_database_is_an_error() -> None:
    ended = run("top", "--once", env={"ASYNC_JOBS_DB_DSN": UNREACHABLE})

    assert ended.code == 1
    assert "ASYNC_JOBS_DB_DSN" in ended.said
    assert "sesame" not in ended.said


def test_a_database_without_the_schema_is_told_to_migrate(empty_database: str) -> None:
    ended = run("top", env={"ASYNC_JOBS_DB_DSN": empty_database})

    assert ended.code == 1
    assert "async-jobs migrate" in ended.said


def test_on_a_terminal_it_fills_the_screen_and_gives_it_back(database: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "async_jobs.cli.top", "--every-seconds", "0.1"]
    env = variables({"ASYNC_JOBS_DB_DSN": database, "TERM": "xterm"})
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    try:
        said = _read(ours, until="message_labeling")
        process.send_signal(signal.SIGINT)
        said += _read(ours, until="\x1b[?1049l")
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)

    assert said.startswith("\x1b[?1049h")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "async-jobs top" in lines[0]


def _read(terminal: int, *, until: str) -> str:
    deadline, said = time.monotonic() + PATIENCE_SECONDS, ""
    while until not in said:
        assert time.monotonic() < deadline, said
        if select.select([terminal], [], [], 0.1)[0]:
            said += os.read(terminal, 65_536).decode()
    return said
