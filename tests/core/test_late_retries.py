"""A retry that would come after the promised deadline follows the use case's policy."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.endings import Sign
from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import MOST_LEASES_FOR_NOTHING, Outcome, Raised, decide
from async_jobs.errors import Backpressure, Retry, Snooze
from async_jobs.models import JobStatus, LateRetry, StartedJob

from .started import BOOM, JOB, NOW


def after(ran_seconds: float, late_retry: LateRetry, job: StartedJob = JOB) -> Outcome:
    return decide(job, BOOM, random=0.0, ran_seconds=ran_seconds, late_retry=late_retry)


def recorded(outcome: Outcome) -> dict[str, Any]:
    assert outcome.error_json is not None
    assert json.loads(outcome.error_json) == outcome.error
    return json.loads(outcome.error_json)  # type: ignore[no-any-return] # an object


@pytest.mark.parametrize("late_retry", LateRetry)
@pytest.mark.parametrize("ran_seconds", [0.0, 19.9, 20.0])
def test_a_retry_in_time_is_the_same_under_every_policy(
    late_retry: LateRetry, ran_seconds: float
) -> None:
    outcome = after(ran_seconds, late_retry)

    assert (outcome.move, outcome.delay_seconds, outcome.late_by_seconds) == (Move.RETRY, 40.0, 0)
    assert "late_by_seconds" not in recorded(outcome)


def test_an_allowed_late_retry_says_how_late_it_comes() -> None:
    outcome = after(25.0, LateRetry.ALLOW)

    assert (outcome.move, outcome.delay_seconds) == (Move.RETRY, 40.0)
    assert outcome.late_by_seconds == pytest.approx(5)
    assert recorded(outcome)["late_by_seconds"] == pytest.approx(5)
    assert recorded(outcome)["type"] == "ValueError"


def test_a_clipped_retry_comes_at_the_promised_deadline() -> None:
    outcome = after(25.0, LateRetry.CLIP)

    assert (outcome.move, outcome.status) == (Move.RETRY, JobStatus.PENDING)
    assert outcome.delay_seconds == pytest.approx(35)
    assert outcome.late_by_seconds == 0


def test_once_the_deadline_has_passed_a_clipped_retry_follows_its_backoff_and_says_so() -> None:
    """Nothing is left to clip to; without a wait a failing job would be run in a tight circle."""
    outcome = after(61.0, LateRetry.CLIP)

    assert (outcome.move, outcome.delay_seconds) == (Move.RETRY, 40.0)
    assert recorded(outcome)["late_by_seconds"] == pytest.approx(41)


def test_a_late_retry_that_is_given_up_leaves_the_job_dead_with_both_reasons() -> None:
    outcome = after(25.0, LateRetry.GIVE_UP)

    assert (outcome.move, outcome.status, outcome.sign) == (Move.BURY, JobStatus.DEAD, Sign.FAILS)
    error = recorded(outcome)
    assert (error["type"], error["attempt"]) == ("DeadlineMissed", 1)
    assert "5.000 s after the promised deadline" in error["message"]
    assert "ValueError: boom" in error["message"]
    assert "ValueError" in error["traceback"]


def test_the_promise_is_the_first_one_and_not_that_of_the_retry() -> None:
    retried = JOB._replace(
        attempts=2,
        run_at=NOW + timedelta(seconds=50),
        deadline_at=NOW + timedelta(seconds=110),
        started_at=NOW + timedelta(seconds=50),
        first_run_at=NOW,
    )

    assert after(0.0, LateRetry.CLIP, retried).delay_seconds == pytest.approx(10)
    assert after(0.0, LateRetry.GIVE_UP, retried).move is Move.BURY


def test_the_wait_a_handler_asks_for_is_clipped_too() -> None:
    outcome = decide(JOB, Raised(Retry(3_600)), random=0.0, late_retry=LateRetry.CLIP)

    assert outcome.delay_seconds == pytest.approx(60)


@pytest.mark.parametrize("signal", [Snooze(3_600), Backpressure(3_600)])
@pytest.mark.parametrize("late_retry", LateRetry)
def test_a_wait_that_is_no_retry_is_the_handlers_own_affair(
    signal: Exception, late_retry: LateRetry
) -> None:
    outcome = decide(JOB, Raised(signal), random=0.0, late_retry=late_retry)

    assert (outcome.move, outcome.delay_seconds) == (Move.SNOOZE, 3_600.0)


def test_a_probe_whose_retry_is_clipped_has_its_attempt_given_back_all_the_same() -> None:
    probe = JOB._replace(probe=True, attempts=3, lease_seq=MOST_LEASES_FOR_NOTHING)
    outcome = after(25.0, LateRetry.CLIP, probe)

    assert (outcome.delay_seconds, outcome.gives_attempt_back) == (pytest.approx(35), True)


@given(
    ran_seconds=st.floats(0, 1e6),
    delay_seconds=st.floats(0, 1e6),
    late_retry=st.sampled_from(LateRetry),
)
def test_no_retry_comes_after_the_promise_in_silence(
    ran_seconds: float, delay_seconds: float, late_retry: LateRetry
) -> None:
    outcome = decide(
        JOB,
        Raised(Retry(delay_seconds)),
        random=0.0,
        ran_seconds=ran_seconds,
        late_retry=late_retry,
    )

    if outcome.move is Move.BURY:
        assert late_retry is LateRetry.GIVE_UP
        return
    assert outcome.delay_seconds is not None
    assert 0 <= outcome.delay_seconds <= delay_seconds
    late = ran_seconds + outcome.delay_seconds > 60 + 1e-6
    assert not late or outcome.late_by_seconds > 0
    assert not late or recorded(outcome)["late_by_seconds"] is not None
