"""A rate lets through its burst and then so many a second, however the asking is spread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.rate import Rate

RATES = st.builds(Rate, st.floats(0.01, 1_000), st.integers(1, 50))
STEPS = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 60)), max_size=60)


def let_through(rate: Rate, steps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """(time, jobs) for each step of (seconds later, jobs wanted)."""
    at, ahead, passed = 0.0, 0.0, []
    for later, wanted in steps:
        at, ahead = at + later, ahead - later
        jobs = min(wanted, rate.allowed(ahead))
        ahead = rate.ahead_after(ahead, jobs)
        passed.append((at, jobs))
    return passed


@given(RATES, STEPS)
def test_no_span_of_time_has_more_than_the_burst_and_its_seconds_times_the_rate(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    passed = let_through(rate, steps)

    for first in range(len(passed)):
        for last in range(first, len(passed)):
            jobs = sum(count for _, count in passed[first : last + 1])
            seconds = passed[last][0] - passed[first][0]
            assert jobs <= rate.burst + seconds * rate.per_second + 1e-3


@given(RATES, st.integers(1, 200))
def test_a_tenant_that_takes_all_it_may_gets_its_rate(rate: Rate, times: int) -> None:
    jobs = sum(count for _, count in let_through(rate, [(rate.interval_seconds, 10)] * times))

    assert jobs >= times - 1


def test_a_quiet_tenant_has_its_whole_burst_again_and_no_more() -> None:
    rate = Rate(2.0, 5)

    assert (rate.allowed(0), rate.allowed(-3_600)) == (5, 5)


@pytest.mark.parametrize(
    ("ahead_seconds", "allowed", "wait_seconds"),
    [(0.0, 3, 0.0), (0.5, 2, 0.0), (1.0, 1, 0.0), (1.25, 0, 0.25), (1.5, 0, 0.5)],
)
def test_what_is_ahead_says_how_many_may_go_and_when_the_next_may(
    ahead_seconds: float, allowed: int, wait_seconds: float
) -> None:
    rate = Rate(2.0, 3)

    assert rate.allowed(ahead_seconds) == allowed
    assert rate.wait_seconds(ahead_seconds) == pytest.approx(wait_seconds)


@given(RATES, st.floats(0, 1e9))
def test_after_the_wait_one_job_may_go(rate: Rate, ahead_seconds: float) -> None:
    ahead = min(ahead_seconds, rate.burst * rate.interval_seconds)

    assert rate.allowed(ahead - rate.wait_seconds(ahead)) >= 1


def test_a_clock_that_was_set_back_by_a_day_holds_a_tenant_up_for_one_interval_only() -> None:
    assert Rate(2.0, 3).wait_seconds(86_400.0) == pytest.approx(0.5)
