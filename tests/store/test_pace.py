"""The pace at which a process connects."""

from __future__ import annotations

import psycopg
import pytest

from async_jobs.store import pace as pace_module
from async_jobs.store.pace import Pace, PacedConnection


def test_connects_that_work_follow_each_other_at_once() -> None:
    pace = Pace()

    for _ in range(3):
        assert pace.begin()
        pace.end(worked=True)


def test_while_one_is_under_way_or_failed_the_next_waits_for_its_time() -> None:
    pace = Pace()

    assert pace.begin()
    assert not pace.begin()
    pace.end(worked=False)
    assert not pace.begin()


def test_when_its_time_has_come_a_connect_begins_beside_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace_module, "SPACING_SECONDS", 0.0)
    pace = Pace()

    assert pace.begin()
    assert pace.begin()


def test_one_that_works_ends_the_wait() -> None:
    pace = Pace()
    pace.begin()
    pace.end(worked=False)
    pace._next_at = 0.0
    assert pace.begin()
    pace.end(worked=True)

    assert pace.begin()


async def test_a_connect_that_fails_is_told_to_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    monkeypatch.setattr(pace_module, "of_this_process", pace)

    with pytest.raises(psycopg.OperationalError):
        await PacedConnection.connect("host=127.0.0.1 port=1")

    assert not pace.begin()


def test_a_server_that_refuses_to_write_is_met_slowly_although_it_lets_everybody_in() -> None:
    pace = Pace()
    assert pace.begin()
    pace.end(worked=True)

    pace.doubt()
    assert not pace.begin()
    pace._doubted_until = 0.0

    assert pace.begin()
