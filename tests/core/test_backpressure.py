"""Capacity falls by three tenths at a report, comes back one by one, and stays within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.backpressure import (
    WINDOW_SECONDS,
    Level,
    Lowered,
    next_level,
    seconds_to_next,
)


def lowered(capacity: int | None, *, told: float, changed: float) -> Lowered:
    return Lowered(capacity=capacity, told_seconds=told, changed_seconds=changed)


def test_the_first_report_lowers_at_once() -> None:
    assert next_level(lowered(None, told=0.1, changed=0.1), 10) == Level(7, 0.0)


def test_another_report_in_the_same_window_lowers_no_further() -> None:
    assert next_level(lowered(7, told=1.0, changed=WINDOW_SECONDS - 1), 10) == Level(7)


def test_a_report_after_the_window_lowers_again() -> None:
    assert next_level(lowered(7, told=1.0, changed=WINDOW_SECONDS), 10) == Level(4, 0.0)


def test_the_report_that_caused_a_move_does_not_cause_the_next_one() -> None:
    assert next_level(lowered(7, told=12.0, changed=11.0), 10).capacity == 8


def test_a_quiet_window_gives_one_slot_back_and_several_give_several() -> None:
    assert next_level(lowered(4, told=60.0, changed=9.0), 10) == Level(4)
    assert next_level(lowered(4, told=60.0, changed=10.0), 10) == Level(5, 0.0)
    assert next_level(lowered(4, told=60.0, changed=25.0), 10) == Level(6, 5.0)


def test_the_configured_capacity_is_the_ceiling_and_one_the_floor() -> None:
    assert next_level(lowered(9, told=999.0, changed=999.0), 10).capacity == 10
    assert next_level(lowered(1, told=1.0, changed=20.0), 10).capacity == 1
    assert next_level(lowered(50, told=99.0, changed=1.0), 10).capacity == 10


@given(st.integers(1, 100_000), st.data())
def test_the_level_is_always_between_one_and_the_configured_capacity(
    full: int, data: st.DataObject
) -> None:
    state = lowered(
        data.draw(st.none() | st.integers(1, 200_000)),
        told=data.draw(st.floats(0, 1e6)),
        changed=data.draw(st.floats(0, 1e6)),
    )

    assert 1 <= next_level(state, full).capacity <= full


@pytest.mark.parametrize("full", [1, 2, 10, 1_000])
def test_a_quiet_use_case_is_whole_again_in_the_end(full: int) -> None:
    capacity = next_level(lowered(None, told=0.0, changed=0.0), full).capacity
    for window in range(full):
        quiet = (window + 1) * WINDOW_SECONDS
        capacity = next_level(lowered(capacity, told=quiet, changed=WINDOW_SECONDS), full).capacity

    assert capacity == full


def test_the_next_move_is_announced() -> None:
    assert seconds_to_next(lowered(7, told=1.0, changed=4.0)) == WINDOW_SECONDS - 4
    assert seconds_to_next(lowered(None, told=1.0, changed=0.0)) == 0
