"""Failpoints do what they are told, where they are told to, and only in a process under test."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_environment import problem, read

from async_jobs import failpoints
from async_jobs.failpoints import FailpointReached, arm, reach, reach_in_thread

PACKAGE = Path(failpoints.__file__).parent


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


async def test_a_place_that_is_not_armed_does_nothing() -> None:
    arm("scheduler.after_lease=raise")

    await reach("scheduler.after_send")


async def test_a_place_told_to_raise_raises() -> None:
    arm("scheduler.after_lease=raise")

    with pytest.raises(FailpointReached, match="told to raise"):
        await reach("scheduler.after_lease")


async def test_a_place_may_strike_once_and_late() -> None:
    arm("scheduler.after_lease=raise@2")
    await reach("scheduler.after_lease")
    with pytest.raises(FailpointReached):
        await reach("scheduler.after_lease")

    await reach("scheduler.after_lease")


def test_a_place_in_a_thread_may_be_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(failpoints.time, "sleep", waited.append)
    arm("heartbeat.before_extend=delay:0.25")

    reach_in_thread("heartbeat.before_extend")

    assert waited == [0.25]


def test_a_place_told_to_kill_kills_the_process() -> None:
    code = (
        "from async_jobs.failpoints import *\n"
        "arm('heartbeat.before_extend=kill'); reach_in_thread('heartbeat.before_extend')"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False)

    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "text", ["x", "nowhere=kill", "worker.after_start=jump", "worker.after_start=delay", "a=kill,"]
)
def test_what_cannot_be_read_is_refused_by_its_number(text: str) -> None:
    found = problem(TESTING="on", FAILPOINTS=text)

    assert found.startswith("ASYNC_JOBS_FAILPOINTS: entry 1 ")


def test_failpoints_are_refused_where_nobody_tests() -> None:
    found = problem(FAILPOINTS="worker.after_start=kill")

    assert found.startswith("ASYNC_JOBS_FAILPOINTS: is for tests alone")
    assert "ASYNC_JOBS_TESTING=on" in found


def test_a_test_may_arm_several_places() -> None:
    config = read(TESTING="on", FAILPOINTS="worker.after_start=kill, worker.after_handler=stop@3")

    assert config.failpoints is not None
    assert set(failpoints.read(config.failpoints)) == {
        "worker.after_start",
        "worker.after_handler",
    }


def test_every_place_is_in_the_code_once() -> None:
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    found = [name for text in texts for name in re.findall(r'reach\w*\("([a-z_.]+)"\)', text)]

    assert sorted(found) == sorted(failpoints.POINTS)
