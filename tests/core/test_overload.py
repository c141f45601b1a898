"""Only tenants above their share are refused, and told when their share has caught up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.overload import Standing, refusal_seconds, wait_seconds

STANDING = Standing(pending=500, share=5.0, mean_seconds=1.0, others_wait=True)


def refused(standing: Standing, tolerance_seconds: float = 60.0) -> float | None:
    return refusal_seconds(standing, tolerance_seconds=tolerance_seconds, random=0.5)


def test_what_is_above_the_share_comes_back_when_the_share_has_worked_it_off() -> None:
    """5 slots of 1 s jobs do 300 in the 60 s of tolerance; 200 more take them 40 s."""
    assert refused(STANDING) == pytest.approx(40.0)


@pytest.mark.parametrize("pending", [0, 1, 299, 300])
def test_a_tenant_within_its_share_is_never_refused(pending: int) -> None:
    assert refused(replace(STANDING, pending=pending)) is None


def test_a_tenant_alone_is_never_refused() -> None:
    assert refused(replace(STANDING, others_wait=False)) is None


def test_a_tenant_may_always_use_the_slots_of_its_share_however_urgent_its_jobs() -> None:
    assert refused(replace(STANDING, pending=5), tolerance_seconds=0) is None
    assert refused(replace(STANDING, pending=1, share=0.1), tolerance_seconds=0) is None


@given(
    st.integers(1, 10**9),
    st.floats(0, 1e6),
    st.floats(0, 1, exclude_max=True),
)
def test_a_wait_lies_between_a_second_and_five_minutes(
    jobs: int, per_second: float, random: float
) -> None:
    assert 1.0 <= wait_seconds(jobs, per_second, random=random) <= 300.0


def test_those_who_were_refused_together_come_back_apart() -> None:
    waits = [wait_seconds(100, 1.0, random=random) for random in (0.0, 0.5, 0.999)]

    assert waits == pytest.approx([80.0, 100.0, 119.96])
