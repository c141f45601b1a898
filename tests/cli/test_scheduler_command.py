"""`async-jobs-scheduler`: what it needs, and that it stops at any moment of its life."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import UNREACHABLE, read_until, rest, run, start

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")
FIRST_INSTRUCTIONS = (0, -signal.SIGTERM)
"""Nobody can handle a signal before the interpreter runs: there the system ends the process."""


def can_be_pid_1() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def test_without_a_dsn_it_says_which_variable_to_set() -> None:
    ended = run("scheduler")

    assert ended.code == 2
    assert "ASYNC_JOBS_DB_DSN: is not set" in ended.lines[1]


def test_a_database_that_cannot_be_reached_is_said_after_a_while() -> None:
    ended = run("scheduler", env={"ASYNC_JOBS_DB_DSN": UNREACHABLE})

    assert ended.code == 1
    assert ended.lines[-1].startswith("error: No connection to PostgreSQL within 0.2 s.")


def test_every_problem_of_the_configuration_is_said_at_once() -> None:
    ended = run(
        "scheduler",
        env={"ASYNC_JOBS_LEASE_DURATION_SECONDS": "long", "ASYNC_JOBS_LOG_LEVEL": "x"},
    )

    assert ended.code == 2
    assert len(ended.lines) == 4


def test_it_says_what_it_schedules_and_stops_politely(database: str) -> None:
    process = start(
        "scheduler",
        env={"ASYNC_JOBS_DB_DSN": database, "ASYNC_JOBS_ORDERS_MAX_CONCURRENT": "3"},
    )
    ready = read_until(process, "ready")
    process.send_signal(signal.SIGTERM)
    ended = rest(process)

    assert "orders" in ready
    assert ended.code == 0
    assert ended.lines[-1].endswith("stopped")


def test_its_log_can_be_json(database: str) -> None:
    process = start(
        "scheduler", env={"ASYNC_JOBS_DB_DSN": database, "ASYNC_JOBS_LOG_FORMAT": "json"}
    )
    ready = read_until(process, "ready")
    process.send_signal(signal.SIGTERM)

    assert rest(process).code == 0
    assert '"event": "ProcessStarted"' in ready


@pytest.mark.parametrize("after_seconds", [0.0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0])
def test_a_stop_at_any_moment_of_its_start_is_a_polite_one(after_seconds: float) -> None:
    process = start("scheduler", env={"ASYNC_JOBS_DB_DSN": UNREACHABLE})
    time.sleep(after_seconds)  # which moment of its start is hit does not matter

    process.send_signal(signal.SIGTERM)

    ended = rest(process)
    assert ended.code in FIRST_INSTRUCTIONS
    assert "Traceback" not in ended.said


def test_a_stop_is_heard_before_the_command_line_is_even_imported() -> None:
    """The first import of a command leads to the handler, and to nothing slow."""
    program = (
        "import sys; sys.argv = ['/usr/bin/async-jobs-scheduler']; import async_jobs.cli, os, "
        "signal; assert 'typer' not in sys.modules and 'asyncio' not in sys.modules; "
        "os.kill(os.getpid(), signal.SIGTERM); print('still here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_the_commands_elsewhere_leaves_signals_alone() -> None:
    program = (
        "import signal, async_jobs.cli; "
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; print('untouched')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "untouched\n", done.stderr


# Only a new PID namespace makes a process PID 1, and plain users may be denied one.
@pytest.mark.skipif(not can_be_pid_1(), reason="needs the right to make a PID namespace")
@pytest.mark.parametrize("moment", ["starting", "ready"])
def test_pid_1_of_a_container_stops_when_asked(database: str, moment: str) -> None:
    dsn = UNREACHABLE if moment == "starting" else database
    process = start("scheduler", before=UNSHARE, env={"ASYNC_JOBS_DB_DSN": dsn})
    read_until(process, "ready" if moment == "ready" else "error connecting")

    inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    subprocess.run(["kill", "-TERM", *inside], check=True)

    assert rest(process).code == 0
