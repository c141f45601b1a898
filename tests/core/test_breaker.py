"""A flow is shut when half of its attempts fail, tried every 30 s, and opened by a success."""

from __future__ import annotations

from typing import Any

import pytest

from async_jobs.core.breaker import (
    FORGET_SECONDS,
    LEAST_WATCHED_SECONDS,
    PROBE_EVERY_SECONDS,
    Breaker,
    Step,
    next_step,
    seconds_to_probe,
)


def closed(ended: int, failed: int, **more: Any) -> Breaker:
    return Breaker(ended=ended, failed=failed, **{"watched_seconds": 10.0, **more})


def opened(probed_seconds: float, **more: Any) -> Breaker:
    return Breaker(open_seconds=100.0, probed_seconds=probed_seconds, **more)


@pytest.mark.parametrize(
    ("ended", "failed", "step"),
    [
        (0, 0, Step.STAY_CLOSED),
        (19, 19, Step.STAY_CLOSED),
        (20, 9, Step.STAY_CLOSED),
        (20, 10, Step.OPEN),
        (20, 20, Step.OPEN),
        (1_000, 499, Step.STAY_CLOSED),
        (1_000, 500, Step.OPEN),
    ],
)
def test_half_of_at_least_twenty_shuts_a_flow(ended: int, failed: int, step: Step) -> None:
    assert next_step(closed(ended, failed)) is step


def test_a_flow_is_watched_for_a_moment_before_it_is_shut() -> None:
    just_seen = closed(50, 50, watched_seconds=LEAST_WATCHED_SECONDS - 0.1)

    assert next_step(just_seen) is Step.STAY_CLOSED


@pytest.mark.parametrize(
    ("probed_seconds", "step"),
    [
        (0.0, Step.STAY_OPEN),
        (PROBE_EVERY_SECONDS - 0.1, Step.STAY_OPEN),
        (PROBE_EVERY_SECONDS, Step.PROBE),
        (FORGET_SECONDS - 1, Step.PROBE),
        (FORGET_SECONDS, Step.CLOSE),
    ],
)
def test_a_shut_flow_is_probed_and_not_shut_for_ever(probed_seconds: float, step: Step) -> None:
    assert next_step(opened(probed_seconds)) is step


def test_a_probe_that_ended_well_closes_the_breaker_whatever_failed_before() -> None:
    assert next_step(opened(1.0, probe_succeeded=True, ended=99, failed=99)) is Step.CLOSE


def test_what_failed_before_does_not_open_what_is_open() -> None:
    assert next_step(opened(1.0, ended=99, failed=99)) is Step.STAY_OPEN


def test_the_next_probe_is_announced() -> None:
    assert seconds_to_probe(opened(12.0)) == PROBE_EVERY_SECONDS - 12
    assert seconds_to_probe(opened(99.0)) == 0
