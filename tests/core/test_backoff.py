"""The wait after a failed attempt, and what is accepted as a policy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.backoff import (
    DEFAULT_BACKOFF,
    MAX_DELAY_SECONDS,
    delay_after,
    read_policy,
)
from async_jobs.errors import InvalidJob
from async_jobs.models import BackoffPolicy, BackoffType

randoms = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 10_000)


@st.composite
def policies(draw: st.DrawFn) -> BackoffPolicy:
    limit = draw(st.floats(0, MAX_DELAY_SECONDS))
    return read_policy(
        BackoffPolicy(
            type=draw(st.sampled_from(BackoffType)),
            base_delay_seconds=draw(st.floats(0, limit)),
            max_delay_seconds=limit,
            jitter=draw(st.floats(0, 1)),
        )
    )


@given(policies(), attempts, randoms)
def test_a_wait_is_never_negative_and_never_above_the_cap(
    policy: BackoffPolicy, attempt: int, random: float
) -> None:
    delay = delay_after(policy, attempt, random=random)

    assert 0 <= delay <= policy.max_delay_seconds
    assert math.isfinite(delay)


@given(policies(), attempts, attempts, randoms)
def test_a_later_attempt_never_waits_shorter(
    policy: BackoffPolicy, one: int, other: int, random: float
) -> None:
    early, late = sorted((one, other))

    assert delay_after(policy, early, random=random) <= delay_after(policy, late, random=random)


@given(policies(), attempts, randoms)
def test_jitter_only_makes_a_wait_longer_and_by_no_more_than_it_says(
    policy: BackoffPolicy, attempt: int, random: float
) -> None:
    plain = delay_after(policy, attempt, random=0.0)
    jittered = delay_after(policy, attempt, random=random)

    assert plain <= jittered <= plain * (1 + policy.jitter) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        (BackoffType.CONSTANT, [10, 10, 10, 10]),
        (BackoffType.LINEAR, [10, 20, 30, 35]),
        (BackoffType.EXPONENTIAL, [10, 20, 35, 35]),
    ],
)
def test_the_three_types_grow_as_documented(kind: BackoffType, waits: list[float]) -> None:
    policy = BackoffPolicy(type=kind, base_delay_seconds=10, max_delay_seconds=35, jitter=0)

    assert waits == [delay_after(policy, attempt, random=0.5) for attempt in (1, 2, 3, 4)]


@pytest.mark.parametrize("kind", BackoffType)
def test_attempt_ten_thousand_of_the_largest_policy_does_not_overflow(kind: BackoffType) -> None:
    policy = BackoffPolicy(
        type=kind,
        base_delay_seconds=MAX_DELAY_SECONDS,
        max_delay_seconds=MAX_DELAY_SECONDS,
        jitter=1.0,
    )

    assert delay_after(policy, 10_000, random=0.999) == MAX_DELAY_SECONDS


def test_no_policy_means_the_default() -> None:
    assert read_policy(None) is DEFAULT_BACKOFF


def test_a_policy_without_a_cap_gets_one_that_its_base_fits_under() -> None:
    policy = read_policy({"type": "constant", "base_delay_seconds": 7200})

    assert (policy.base_delay_seconds, policy.max_delay_seconds) == (7200, 7200)


@given(policies())
def test_a_policy_reads_back_from_its_own_json(policy: BackoffPolicy) -> None:
    assert read_policy(policy.to_json()) == policy


def test_a_policy_object_may_name_its_type_as_text() -> None:
    policy = read_policy(BackoffPolicy(type="linear"))  # type: ignore[arg-type] # as users write it

    assert policy.to_json()["type"] == "linear"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"type": "fibonacci"}, "backoff_policy.type"),
        ({}, "backoff_policy.type"),
        ({"type": ["constant"]}, "backoff_policy.type"),
        ({"type": None}, "backoff_policy.type"),
        (BackoffPolicy(type="fibonacci"), "backoff_policy.type"),  # type: ignore[arg-type] # wrong
        ({"type": "constant", "base": 3}, "backoff_policy"),
        ({"type": "constant", 3: 3}, "backoff_policy"),
        ([], "backoff_policy"),
        ("constant", "backoff_policy"),
        ({"type": "constant", "base_delay_seconds": -1}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "base_delay_seconds": "60"}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "base_delay_seconds": True}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "base_delay_seconds": None}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "base_delay_seconds": math.nan}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "base_delay_seconds": math.inf}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "base_delay_seconds": 10**400}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "max_delay_seconds": 1e18}, "backoff_policy.max_delay_seconds"),
        ({"type": "constant", "max_delay_seconds": 5}, "backoff_policy.base_delay_seconds"),
        ({"type": "constant", "jitter": 1.5}, "backoff_policy.jitter"),
        ({"type": "constant", "jitter": -0.1}, "backoff_policy.jitter"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused_by_field(raw: Any, field: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        read_policy(raw)

    assert (refusal.value.field, refusal.value.code) == (field, "invalid_backoff_policy")
