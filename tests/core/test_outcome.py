"""How an attempt ended decides what the row becomes."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.endings import Sign
from async_jobs.core.lifecycle import LIFECYCLE, Move, allowed
from async_jobs.core.outcome import (
    MOST_LEASES_FOR_NOTHING,
    Ending,
    Interrupted,
    Interruption,
    Outcome,
    Raised,
    Returned,
    decide,
    no_handler,
)
from async_jobs.errors import Backpressure, Bury, Cancel, Retry, Snooze, UnknownType
from async_jobs.models import JobStatus, StartedJob

from .started import BOOM, JOB

TEN_YEARS_SECONDS = 10 * 366 * 86_400.0
FIRST, LAST = JOB, JOB._replace(attempts=3)


@pytest.mark.parametrize(
    ("job", "ending", "move", "status", "delay_seconds", "gives_back"),
    [
        (FIRST, Returned(None), Move.SUCCEED, "succeeded", None, False),
        (LAST, Returned({"a": 1}), Move.SUCCEED, "succeeded", None, False),
        (FIRST, Returned(object()), Move.SUCCEED, "succeeded", None, False),
        (FIRST, BOOM, Move.RETRY, "pending", 40.0, False),
        (LAST, BOOM, Move.BURY, "dead", None, False),
        (FIRST, Raised(Retry()), Move.RETRY, "pending", 40.0, False),
        (FIRST, Raised(Retry(7)), Move.RETRY, "pending", 7.0, False),
        (FIRST, Raised(Retry(0)), Move.RETRY, "pending", 0.0, False),
        (FIRST, Raised(Retry(-5)), Move.RETRY, "pending", 0.0, False),
        (LAST, Raised(Retry(7)), Move.BURY, "dead", None, False),
        (FIRST, Raised(Snooze(9)), Move.SNOOZE, "pending", 9.0, True),
        (LAST, Raised(Snooze(9)), Move.SNOOZE, "pending", 9.0, True),
        (FIRST, Raised(Snooze(-9)), Move.SNOOZE, "pending", 0.0, True),
        (FIRST, Raised(Backpressure(9)), Move.SNOOZE, "pending", 9.0, True),
        (LAST, Raised(Backpressure(9)), Move.SNOOZE, "pending", 9.0, True),
        (FIRST, Raised(Cancel("no")), Move.CANCEL, "cancelled", None, False),
        (LAST, Raised(Cancel()), Move.CANCEL, "cancelled", None, False),
        (FIRST, Raised(Bury("no")), Move.BURY, "dead", None, False),
        (FIRST, Interrupted(Interruption.CANCELLED), Move.CANCEL, "cancelled", None, False),
        (FIRST, Interrupted(Interruption.STOPPING), Move.RELEASE, "pending", None, True),
        (LAST, Interrupted(Interruption.STOPPING), Move.RELEASE, "pending", None, True),
        (FIRST, Raised(SystemExit(1)), Move.RETRY, "pending", 40.0, False),
        (FIRST, Raised(KeyboardInterrupt()), Move.RETRY, "pending", 40.0, False),
        (FIRST, Raised(asyncio.CancelledError()), Move.RETRY, "pending", 40.0, False),
        (LAST, Raised(GeneratorExit()), Move.BURY, "dead", None, False),
        (FIRST, Raised(BaseExceptionGroup("", [SystemExit()])), Move.RETRY, "pending", 40.0, False),
    ],
)
def test_the_table_of_endings(
    job: StartedJob,
    ending: Ending,
    move: Move,
    status: str,
    delay_seconds: float | None,
    gives_back: bool,
) -> None:
    outcome = decide(job, ending, random=0.0)

    assert (outcome.move, outcome.status) == (move, status)
    assert outcome.delay_seconds == delay_seconds
    assert outcome.gives_attempt_back is gives_back


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 1e12, 10**400])
@pytest.mark.parametrize("signal", [Retry, Snooze])
def test_a_wait_beyond_all_calendars_becomes_ten_years(signal: Any, seconds: float) -> None:
    assert decide(FIRST, Raised(signal(seconds)), random=0.0).delay_seconds == TEN_YEARS_SECONDS


@pytest.mark.parametrize("seconds", [math.nan, "5", None, timedelta(seconds=5), [], True])
def test_a_snooze_without_a_usable_wait_is_a_failure_of_the_handler(seconds: Any) -> None:
    outcome = decide(FIRST, Raised(Snooze(seconds)), random=0.0)

    assert (outcome.move, outcome.delay_seconds) == (Move.RETRY, 40.0)
    assert outcome.error is not None


@pytest.mark.parametrize("seconds", [math.nan, "5", timedelta(seconds=5), [], True])
def test_a_retry_without_a_usable_wait_follows_the_backoff(seconds: Any) -> None:
    outcome = decide(FIRST, Raised(Retry(seconds)), random=0.0)

    assert (outcome.move, outcome.delay_seconds) == (Move.RETRY, 40.0)


def test_the_backoff_counts_from_the_attempt_that_failed() -> None:
    job = JOB._replace(attempts=2, backoff_policy={"type": "linear", "base_delay_seconds": 10})

    assert decide(job, BOOM, random=0.0).delay_seconds == 20.0


@pytest.mark.parametrize("policy", [None, {"type": "fibonacci"}, [], "x", {"jitter": 10**400}])
def test_a_policy_written_past_our_checks_gives_way_to_the_default(policy: Any) -> None:
    outcome = decide(JOB._replace(backoff_policy=policy), BOOM, random=0.0)

    assert outcome.delay_seconds == 60.0


def test_a_failure_is_recorded_with_its_attempt() -> None:
    outcome = decide(JOB._replace(attempts=2), BOOM, random=0.0)

    assert outcome.error_json is not None
    recorded = json.loads(outcome.error_json)
    assert (recorded["type"], recorded["message"]) == ("ValueError", "boom")
    assert recorded["attempt"] == 2


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (Cancel("changed my mind"), "changed my mind"),
        (Cancel(), "cancelled by its handler"),
        (Bury("no such address"), "no such address"),
        (Bury(), "buried by its handler"),
    ],
)
def test_the_reason_a_handler_gives_is_recorded(signal: Exception, message: str) -> None:
    outcome = decide(JOB, Raised(signal), random=0.0)

    assert json.loads(outcome.error_json or "")["message"] == message


@pytest.mark.parametrize("message", ["nul \0", "lone \ud800 surrogate", "x" * 10**6])
def test_an_error_text_that_postgresql_could_not_hold_is_made_safe(message: str) -> None:
    for error in (ValueError(message), Cancel(message), Bury(message), Retry(1, message)):
        text = decide(JOB, Raised(error), random=0.0).error_json or ""

        assert "\\u0000" not in text
        assert "\\ud800" not in text
        assert len(text) <= 8 * 1024


def test_a_result_is_stored_only_on_success() -> None:
    assert decide(JOB, Returned([1]), random=0.0).result_json == "[1]"
    assert decide(JOB, BOOM, random=0.0).result_json is None


anything = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(st.characters()), st.binary()
)
endings: st.SearchStrategy[Ending] = st.one_of(
    anything.map(Returned),
    st.sampled_from(Interruption).map(Interrupted),
    anything.map(lambda value: Raised(ValueError(value))),
    anything.map(lambda value: Raised(Retry(value))),
    anything.map(lambda value: Raised(Snooze(value))),
    anything.map(lambda value: Raised(Cancel(value))),
    anything.map(lambda value: Raised(Bury(value))),
    st.sampled_from([SystemExit(), KeyboardInterrupt(), GeneratorExit()]).map(Raised),
)


@given(endings, st.integers(1, 1000), st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_no_ending_whatsoever_leads_where_the_lifecycle_does_not(
    ending: Ending, attempts: int, max_attempts: int, random: float
) -> None:
    job = JOB._replace(attempts=min(attempts, max_attempts), max_attempts=max_attempts)

    outcome = decide(job, ending, random=random)

    assert outcome.status in rule_of(outcome).to_statuses
    assert allowed(JobStatus.RUNNING, outcome.status)
    assert outcome.delay_seconds is None or 0 <= outcome.delay_seconds <= TEN_YEARS_SECONDS
    assert has_attempts_left(job, outcome) or outcome.status.is_finished


def rule_of(outcome: Outcome) -> Any:
    return next(rule for rule in LIFECYCLE if rule.move is outcome.move)


def has_attempts_left(job: StartedJob, outcome: Outcome) -> bool:
    return job.attempts - int(outcome.gives_attempt_back) < job.max_attempts


PROBE, LAST_PROBE = FIRST._replace(probe=True), LAST._replace(probe=True)


@pytest.mark.parametrize("job", [PROBE, LAST_PROBE])
@pytest.mark.parametrize("ending", [BOOM, Raised(Retry(7)), Raised(TimeoutError())])
def test_a_probe_that_fails_has_its_attempt_given_back(job: StartedJob, ending: Raised) -> None:
    outcome = decide(job, ending, random=0.0)

    assert (outcome.move, outcome.gives_attempt_back) == (Move.RETRY, True)
    assert outcome.delay_seconds == (7.0 if isinstance(ending.error, Retry) else 40.0)
    assert outcome.error is not None


def test_a_probe_does_not_go_on_for_ever() -> None:
    last_for_nothing = LAST_PROBE._replace(lease_seq=MOST_LEASES_FOR_NOTHING)
    tried_enough = LAST_PROBE._replace(lease_seq=MOST_LEASES_FOR_NOTHING + 1)

    assert decide(last_for_nothing, BOOM, random=0.0).move is Move.RETRY
    assert decide(tried_enough, BOOM, random=0.0).move is Move.BURY


def test_a_probe_that_asks_to_be_buried_is_buried() -> None:
    assert decide(PROBE, Raised(Bury("no")), random=0.0).move is Move.BURY


@pytest.mark.parametrize(
    ("ending", "sign"),
    [
        (Returned(None), Sign.WORKS),
        (Raised(Cancel()), Sign.WORKS),
        (Raised(Snooze(1)), Sign.WORKS),
        (Raised(Backpressure(1)), Sign.PRESSED),
        (BOOM, Sign.FAILS),
        (Raised(TimeoutError()), Sign.FAILS),
        (Raised(Retry(1)), Sign.FAILS),
        (Raised(Bury()), Sign.FAILS),
        (Raised(Snooze("soon")), Sign.FAILS),  # type: ignore[arg-type] # what handlers get wrong
        (Raised(Backpressure("soon")), Sign.FAILS),  # type: ignore[arg-type] # the same
        (Interrupted(Interruption.STOPPING), None),
        (Interrupted(Interruption.CANCELLED), None),
    ],
)
def test_only_errors_and_time_outs_speak_against_a_flow(ending: Ending, sign: Sign | None) -> None:
    assert decide(FIRST, ending, random=0.0).sign is sign
    assert decide(LAST, ending, random=0.0).sign is sign


def test_a_job_nobody_handles_waits_longer_each_time_and_keeps_its_attempt() -> None:
    unknown = UnknownType("sned", "send")
    waits = [
        no_handler(JOB._replace(lease_seq=leases), unknown, random=0.0) for leases in (1, 2, 3, 90)
    ]

    assert [outcome.delay_seconds for outcome in waits] == [10.0, 20.0, 40.0, 300.0]
    assert {(outcome.move, outcome.gives_attempt_back) for outcome in waits} == {
        (Move.RELEASE, True)
    }
    assert json.loads(waits[0].error_json or "")["type"] == "UnknownType"


def test_a_job_nobody_handles_for_a_hundred_leases_uses_its_attempts_and_is_dead() -> None:
    unknown = UnknownType("sned", "send")
    job = JOB._replace(lease_seq=MOST_LEASES_FOR_NOTHING + 1, max_attempts=2)

    retried = no_handler(job._replace(attempts=1), unknown, random=0.0)
    buried = no_handler(job._replace(attempts=2), unknown, random=0.0)

    assert (retried.move, retried.gives_attempt_back) == (Move.RETRY, False)
    assert buried.status is JobStatus.DEAD
