"""Health checks of real processes, asked as a container's health check asks."""

from __future__ import annotations

import re
import signal
import socket

import pytest
from command_line import UNREACHABLE, Ended, read_until, rest, run, start

HANDLERS = {"ASYNC_JOBS_HANDLERS_MODULE": "flow_handlers"}


def ask(port: int, *words: str) -> Ended:
    return run("health", *words, env={"ASYNC_JOBS_HEALTH_PORT": str(port)})


@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_a_process_that_works_is_well_and_ready_until_it_has_gone(role: str, database: str) -> None:
    process = start(role, "--health-port", "0", env={"ASYNC_JOBS_DB_DSN": database, **HANDLERS})
    said = read_until(process, "ready")
    found = re.search(r"health checks at http://127\.0\.0\.1:(\d+)", said)
    assert found, said
    port = int(found.group(1))

    assert (ask(port).code, ask(port, "--ready").code) == (0, 0)

    process.send_signal(signal.SIGTERM)
    assert rest(process).code == 0
    gone = ask(port)
    assert gone.code == 1
    assert gone.lines[0].startswith(f"no health check answers on port {port}")


def test_a_process_that_waits_for_its_database_is_well_and_not_ready_and_stops_at_once() -> None:
    env = {"ASYNC_JOBS_DB_DSN": UNREACHABLE, **HANDLERS}
    process = start("worker", "--health-port", "0", env=env)
    said = read_until(process, "health checks at")
    port = int(said.rpartition(":")[2])

    assert ask(port).code == 0
    ready = ask(port, "--ready")
    process.send_signal(signal.SIGTERM)
    ended = rest(process)

    assert (ready.code, ready.lines) == (1, ["the process is starting"])
    assert ended.code == 0, ended.said


def test_a_health_port_that_is_taken_is_said_and_a_missing_one_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ("--health-port", str(taken.getsockname()[1]))
        ended = run("scheduler", *words, env={"ASYNC_JOBS_DB_DSN": UNREACHABLE})

    assert ended.code == 2
    assert "ASYNC_JOBS_HEALTH_PORT: Address already in use" in ended.lines[1]
    assert run("health").code == 2
