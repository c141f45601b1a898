"""How many tickets travel in one message follows from how fast slots turn over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.packing import MOST_PER_MESSAGE, Turnover

passes = st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 2_000)), min_size=1)


@pytest.mark.parametrize(
    ("leases", "pack"), [(1, 1), (99, 1), (199, 1), (200, 2), (1_000, 10), (5_000, 50), (10**6, 50)]
)
def test_the_pack_is_a_hundredth_of_the_leases_of_the_last_second(leases: int, pack: int) -> None:
    turnover = Turnover()
    turnover.add(leases, at=100.0)

    assert turnover.pack() == pack


def test_leases_of_more_than_a_second_ago_do_not_count() -> None:
    turnover = Turnover()
    turnover.add(5_000, at=100.0)
    turnover.add(1, at=101.0)

    assert turnover.pack() == 1


def test_passes_within_a_second_add_up() -> None:
    turnover = Turnover()
    turnover.add(500, at=100.0)
    turnover.add(500, at=100.999)

    assert turnover.pack() == 10


def test_a_turnover_without_leases_packs_one() -> None:
    assert Turnover().pack() == 1


@given(passes)
def test_the_pack_is_what_a_fresh_count_of_the_window_gives(
    steps: list[tuple[float, int]],
) -> None:
    turnover = Turnover()
    given_at: list[tuple[float, int]] = []
    now = 0.0
    for pause, leases in steps:
        now += pause
        turnover.add(leases, at=now)
        given_at.append((now, leases))
    recent = sum(leases for at, leases in given_at if at > now - 1.0)

    assert turnover.pack() == min(MOST_PER_MESSAGE, max(1, int(recent * 0.01)))
