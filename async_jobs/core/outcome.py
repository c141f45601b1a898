"""How an attempt ended, and what follows from it. Pure.

    ending (what the handler did)        outcome (what the row becomes)
    Returned(value)                      succeed
    Raised(error), attempts left         retry after the job's backoff
    Raised(error), last attempt          bury
    Raised(Retry(after))                 retry after that wait, or bury at the last attempt
    Raised(Snooze(seconds))              snooze: pending again, the attempt given back
    Raised(Backpressure(seconds))        snooze, and the use case's capacity is lowered
    Raised(signal without a number)      as if it had raised an error
    Raised(Cancel(reason))               cancel
    Raised(Bury(reason))                 bury
    Interrupted(cancelled by operator)   cancel
    Interrupted(worker stopping)         release: pending at once, the attempt given back
    no handler for the type              release: pending after a growing wait, the attempt
                                         given back; another worker may know the type

A probe tries out a flow that a circuit breaker has shut. When it fails, that says something
about the flow, not about the job: it is retried with its attempt given back, even the last
one. A job that was leased a hundred times has had its share of that, or of workers that do not
know its type, and then uses attempts like any other, so that no job goes on for ever. Bury still
buries.

A retry that would come after the deadline that was first promised follows the use case's
policy: allowed and said so on the row, clipped so that it comes at that deadline, or the job
is buried. Once that deadline has passed nothing is left to clip to, and the backoff counts.

The worker asks `decide` after every attempt. What follows for a job whose
worker died is not decided here but in the statement `rescue_jobs`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from async_jobs.core.backoff import delay_after, read_policy
from async_jobs.core.endings import Sign
from async_jobs.core.lateness import given_up, missed_error
from async_jobs.core.lifecycle import Move
from async_jobs.core.record import error_record, plain_error, result_json
from async_jobs.errors import Backpressure, Bury, Cancel, InvalidJob, Retry, Snooze
from async_jobs.models import BackoffPolicy, JobStatus, LateRetry, OnLate, StartedJob

LONGEST_WAIT_SECONDS = 10 * 366 * 86_400.0
MOST_LEASES_FOR_NOTHING = 100
NO_HANDLER_BACKOFF = BackoffPolicy(base_delay_seconds=10.0, max_delay_seconds=300.0, jitter=0.25)


class Interruption(Enum):
    """Why the worker ended a handler before its time."""

    CANCELLED = auto()
    STOPPING = auto()


@dataclass(frozen=True, slots=True)
class Returned:
    value: object


@dataclass(frozen=True, slots=True)
class Raised:
    error: BaseException


@dataclass(frozen=True, slots=True)
class Interrupted:
    why: Interruption


Ending = Returned | Raised | Interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One line for `finish_attempts`: what the row becomes.

    `delay_seconds` counts from the moment of writing and matters to pending
    only; None leaves `run_at` and the deadline where they were.
    `gives_attempt_back` takes the start out of `attempts` again. `sign` is what
    the ending says about the job's flow, None if it says nothing. `late_by_seconds` is how
    long after the promised deadline a retry comes, or a job was ended for being late.
    `traceparent` names the span of this attempt, for the next one to link to.
    """

    move: Move
    status: JobStatus
    delay_seconds: float | None = None
    error_json: str | None = None
    result_json: str | None = None
    gives_attempt_back: bool = False
    sign: Sign | None = None
    late_by_seconds: float = 0.0
    traceparent: str | None = None
    error: dict[str, Any] | None = field(default=None, repr=False)


SUCCEEDED = Outcome(move=Move.SUCCEED, status=JobStatus.SUCCEEDED, sign=Sign.WORKS)
"""That of every handler that returns nothing; one object, so that it is known by its identity."""


def decide(
    job: StartedJob,
    ending: Ending,
    *,
    random: float,
    ran_seconds: float = 0.0,
    late_retry: LateRetry = LateRetry.ALLOW,
) -> Outcome:
    """What becomes of *job*; *random* in [0, 1) feeds the backoff's jitter.

    *ran_seconds* is how long ago it started, and *late_retry* what its use case wants of a retry
    that would come after the promised deadline.
    """
    match ending:
        case Returned(None):
            return SUCCEEDED
        case Returned(value):
            return Outcome(
                move=Move.SUCCEED,
                status=JobStatus.SUCCEEDED,
                result_json=result_json(value),
                sign=Sign.WORKS,
            )
        case Interrupted(why):
            return _interrupted(job, why)
        case Raised(Cancel() as signal):
            reason = signal.reason or "cancelled by its handler"
            return replace(_cancelled(job, reason), sign=Sign.WORKS)
        case Raised(Snooze() as signal) if (delay := _wait(signal.seconds)) is not None:
            return _snoozed(delay, Sign.WORKS)
        case Raised(Backpressure() as signal) if (
            delay := _wait(signal.retry_after_seconds)
        ) is not None:
            return _snoozed(delay, Sign.PRESSED)
        case Raised(error):
            outcome = _failed(job, error, random)
            return _kept_to_promise(job, outcome, ran_seconds, late_retry)


def time_limit(of_type: float | None, of_job: float | None) -> float | None:
    """How long an attempt may take: what its type or its job says, whichever is less.

    A producer may ask for less than the author of the handler allows, not for more.
    """
    if of_job is None or not of_job > 0:
        return of_type
    return of_job if of_type is None else min(of_type, of_job)


def bury(job: StartedJob, record: dict[str, Any]) -> Outcome:
    """The job is given up because of what *record* says, without a call of its handler."""
    return replace(_with_error(Move.BURY, JobStatus.DEAD, record), sign=Sign.FAILS)


def end_late(job: StartedJob, on_late: OnLate) -> Outcome:
    """How a job ends that its use case does not run late; the attempt is given back."""
    record = missed_error(job.lateness_seconds, attempt=job.attempts)
    status = JobStatus.DEAD if on_late is OnLate.DEAD else JobStatus.CANCELLED
    ended = _with_error(Move.END_LATE, status, record)
    return replace(ended, gives_attempt_back=True, late_by_seconds=job.lateness_seconds)


def no_handler(job: StartedJob, error: Exception, *, random: float) -> Outcome:
    """What becomes of a job whose type this worker does not know; *error* says so."""
    if job.lease_seq > MOST_LEASES_FOR_NOTHING:
        return _failed(job, error, random)
    record = plain_error(type(error).__name__, str(error), attempt=job.attempts)
    delay = delay_after(NO_HANDLER_BACKOFF, job.lease_seq, random=random)
    released = _with_error(Move.RELEASE, JobStatus.PENDING, record, delay)
    return replace(released, gives_attempt_back=True)


def _interrupted(job: StartedJob, why: Interruption) -> Outcome:
    match why:
        case Interruption.STOPPING:
            return Outcome(move=Move.RELEASE, status=JobStatus.PENDING, gives_attempt_back=True)
        case Interruption.CANCELLED:
            return _cancelled(job, "cancelled while it ran")


def _snoozed(delay_seconds: float, sign: Sign) -> Outcome:
    return Outcome(
        move=Move.SNOOZE,
        status=JobStatus.PENDING,
        delay_seconds=delay_seconds,
        gives_attempt_back=True,
        sign=sign,
    )


def _failed(job: StartedJob, error: BaseException, random: float) -> Outcome:
    record = error_record(error, attempt=job.attempts)
    for_nothing = job.probe and job.lease_seq <= MOST_LEASES_FOR_NOTHING
    if isinstance(error, Bury) or (job.attempts >= job.max_attempts and not for_nothing):
        return replace(_with_error(Move.BURY, JobStatus.DEAD, record), sign=Sign.FAILS)
    delay = _wait(error.after_seconds) if isinstance(error, Retry) else None
    if delay is None:
        delay = delay_after(_policy_of(job), job.attempts, random=random)
    retried = _with_error(Move.RETRY, JobStatus.PENDING, record, delay)
    return replace(retried, gives_attempt_back=for_nothing, sign=Sign.FAILS)


def _kept_to_promise(
    job: StartedJob, outcome: Outcome, ran_seconds: float, late_retry: LateRetry
) -> Outcome:
    """A failed attempt's *outcome*, after the use case's policy for late retries."""
    if outcome.move is not Move.RETRY or outcome.delay_seconds is None or outcome.error is None:
        return outcome
    left_seconds = (job.promised_at - job.started_at).total_seconds() - ran_seconds
    late_by_seconds = outcome.delay_seconds - left_seconds
    if late_by_seconds <= 0:
        return outcome
    if late_retry is LateRetry.CLIP and left_seconds >= 0:
        return replace(outcome, delay_seconds=left_seconds)
    record = {**outcome.error, "late_by_seconds": round(late_by_seconds, 3)}
    if late_retry is LateRetry.GIVE_UP:
        record |= given_up(record, late_by_seconds)
        buried = _with_error(Move.BURY, JobStatus.DEAD, record)
        return replace(buried, sign=Sign.FAILS, late_by_seconds=late_by_seconds)
    return replace(
        outcome, error=record, error_json=json.dumps(record), late_by_seconds=late_by_seconds
    )


def _wait(seconds: object) -> float | None:
    """The wait a handler asks for, from 0 s to ten years; None if it is no number.

    Outcomes are written many at a time: one that PostgreSQL refused would refuse them all.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:
        return None
    return float(min(max(seconds, 0.0), LONGEST_WAIT_SECONDS))


def _policy_of(job: StartedJob) -> BackoffPolicy:
    """A policy that was written past our checks must not keep a failure from being recorded."""
    try:
        return read_policy(job.backoff_policy)
    except InvalidJob:
        return read_policy(None)


def _cancelled(job: StartedJob, reason: str) -> Outcome:
    record = plain_error("Cancelled", reason, attempt=job.attempts)
    return _with_error(Move.CANCEL, JobStatus.CANCELLED, record)


def _with_error(
    move: Move, status: JobStatus, record: dict[str, Any], delay_seconds: float | None = None
) -> Outcome:
    return Outcome(
        move=move,
        status=status,
        delay_seconds=delay_seconds,
        error_json=json.dumps(record),
        error=record,
    )
