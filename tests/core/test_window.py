"""How much is sent ahead: little, but never too little for the workers there are."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.window import LEAST, OLD_SECONDS, Window

LOOK_SECONDS = 0.02


def looks(window: Window, started_between_looks: int, times: int) -> None:
    """A backlog that workers take from at a constant rate; nothing gets old."""
    unstarted = 0
    for number in range(times):
        unstarted += window.room(unstarted=unstarted, old=0, at=number * LOOK_SECONDS)
        window.sent(unstarted=unstarted)
        unstarted = max(0, unstarted - started_between_looks)


@pytest.mark.parametrize(("capacity", "size"), [(1, 2), (10, 2), (50, 5), (1_000, 100)])
def test_it_starts_with_a_tenth_of_the_capacity(capacity: int, size: int) -> None:
    assert Window(capacity).size == size


@given(st.integers(20, 1_000), st.integers(1, 250))
def test_it_grows_to_what_workers_start_between_two_looks(capacity: int, started: int) -> None:
    window = Window(capacity)
    looks(window, started, times=20)

    assert window.size >= min(started, capacity)


@given(st.integers(20, 1_000), st.integers(1, 250))
def test_it_grows_no_further_than_workers_need(capacity: int, started: int) -> None:
    window = Window(capacity)
    first = window.size
    looks(window, started, times=50)

    assert window.size <= max(first, 8 * started / 3)


def test_it_shrinks_once_in_half_a_second_while_half_of_it_is_old() -> None:
    window = Window(1_000, size=64)
    sizes = []
    for half in range(1, 9):
        assert window.room(unstarted=64, old=64, at=half * OLD_SECONDS) == 0
        window.room(unstarted=64, old=64, at=half * OLD_SECONDS + 0.1)
        sizes.append(window.size)

    assert sizes == [32, 16, 8, 4, 2, 2, 2, 2]


def test_one_lost_message_shrinks_nothing() -> None:
    window = Window(10, size=2)
    window.sent(unstarted=2)

    assert window.room(unstarted=1, old=1, at=100.0) >= 1


def test_a_window_that_was_not_full_does_not_grow() -> None:
    window = Window(1_000, size=8)
    for at in count():
        window.sent(unstarted=7)
        assert window.room(unstarted=0, old=0, at=float(at)) == 8
        if at == 20:
            break


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.floats(0.0, 2.0))),
)
def test_it_never_exceeds_the_capacity_and_never_shuts_for_good(
    capacity: int, seen: list[tuple[int, int, float]]
) -> None:
    window, at = Window(capacity), 0.0
    for unstarted, old, later in seen:
        at += later
        room = window.room(unstarted=unstarted, old=min(old, unstarted), at=at)
        window.sent(unstarted=unstarted + room)

        assert room == 0 or unstarted + room <= max(LEAST, capacity)
    # Whatever happened: once everything sent was started, more is sent.
    assert window.room(unstarted=0, old=0, at=at + 1.0) >= min(LEAST, capacity)


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.floats(0.0, 2.0))),
)
def test_it_is_full_where_asking_for_room_would_give_none_and_change_nothing(
    capacity: int, seen: list[tuple[int, int, float]]
) -> None:
    window, at = Window(capacity), 0.0
    for unstarted, old, later in seen:
        at += later
        told = {"unstarted": unstarted, "old": min(old, unstarted), "at": at}
        is_full, before = window.is_full(**told), replace(window)
        room = window.room(**told)

        assert not is_full or (room == 0 and window == before)
        assert is_full or room > 0 or window != before or 4 * unstarted <= window.size
        window.sent(unstarted=unstarted + room)
