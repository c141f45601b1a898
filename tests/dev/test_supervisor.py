"""The supervisor starts, restarts and stops processes, and leaves none behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from supervisor_stand import Stand, wait_for


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A stand for one supervisor; nothing of it survives the test."""
    stand = Stand(tmp_path)
    yield stand
    stand.clean_up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_everything_with_exit_code_0(
    stand: Stand, number: signal.Signals
) -> None:
    stand.start([stand.part("one")], [stand.part("two")])
    stand.send(number)

    assert stand.exit_code() == 0
    assert stand.all_ended()


def test_stages_are_stopped_in_reverse_order(stand: Stand) -> None:
    stand.start([stand.part("first")], [stand.part("second")], [stand.part("third")])
    stand.send(signal.SIGTERM)
    stand.exit_code()

    assert stand.journal()[-3:] == ["third stopped", "second stopped", "first stopped"]


def test_a_crashed_process_is_started_again_and_the_log_says_so(stand: Stand) -> None:
    stand.start([stand.part("shaky", "crash-once"), stand.part("sound")])
    wait_for(lambda: len([line for line in stand.journal() if line.startswith("shaky ")]) == 2)
    stand.send(signal.SIGTERM)

    assert stand.exit_code() == 0
    assert "shaky ended with exit code 7; starts again in" in stand.output()


def test_a_killed_process_is_started_again(stand: Stand) -> None:
    stand.start([stand.part("one")])
    first = stand.pids()["one"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: stand.pids()["one"] != first)
    stand.send(signal.SIGTERM)

    assert stand.exit_code() == 0
    assert "one was ended by SIGKILL; starts again in" in stand.output()
    assert stand.all_ended()


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(stand: Stand) -> None:
    stand.start([stand.part("good")], [stand.part("deaf", "deaf", grace_seconds=0.1)])
    stand.send(signal.SIGTERM)

    assert stand.exit_code() == 0
    assert stand.all_ended()
    assert "deaf did not stop within 0.1 s and is killed" in stand.output()
    assert stand.journal()[-1] == "good stopped"


def test_a_second_ctrl_c_kills_at_once(stand: Stand) -> None:
    stand.start([stand.part("good")], [stand.part("deaf", "deaf", grace_seconds=1000)])
    stand.send(signal.SIGINT)
    wait_for(lambda: "stopping" in stand.output())
    stand.send(signal.SIGINT)

    assert stand.exit_code() == 0
    assert stand.all_ended()


@pytest.mark.parametrize("manner", ["good", "deaf", "parent"])
def test_kill_9_of_the_supervisor_leaves_nothing(stand: Stand, manner: str) -> None:
    stand.start([stand.part("one", manner)])
    stand.send(signal.SIGKILL)
    stand.exit_code()

    wait_for(stand.all_ended)


def test_what_a_process_started_itself_ends_with_it(stand: Stand) -> None:
    stand.start([stand.part("one", "parent")])
    stand.send(signal.SIGTERM)

    assert stand.exit_code() == 0
    wait_for(stand.all_ended)


def test_the_end_of_a_foreground_part_ends_everything_with_its_exit_code(stand: Stand) -> None:
    stand.start([stand.part("one")], [stand.part("demo", "3", foreground=True)])

    assert stand.exit_code() == 3
    assert stand.all_ended()


def test_a_process_that_cannot_be_used_as_configured_ends_everything(stand: Stand) -> None:
    stand.start([stand.part("one")], [stand.part("wrong", "2")])

    assert stand.exit_code() == 2
    assert "wrong cannot be used as it is configured" in stand.output()


def test_a_process_that_waits_for_a_change_of_code_is_not_started_again_and_again(
    stand: Stand,
) -> None:
    stand.start([stand.part("wrong", "2", restarts_on_change=True)])
    wait_for(lambda: "starts again when code changes" in stand.output())
    stand.send(signal.SIGTERM)

    assert stand.exit_code() == 0


def test_every_line_of_a_process_carries_its_name(stand: Stand) -> None:
    stand.start([stand.part("one"), stand.part("long-name")])
    wait_for(lambda: stand.output().count("hello") == 2)
    stand.send(signal.SIGTERM)
    stand.exit_code()

    assert "one       | hello from one\n" in stand.output()
    assert "long-name | hello from long-name\n" in stand.output()


def test_each_process_has_its_own_session_so_that_ctrl_c_passes_it_by(stand: Stand) -> None:
    stand.start([stand.part("one")])
    pid = stand.pids()["one"]

    assert os.getsid(pid) == pid
