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

A probe tries out a flow that a circuit breaker has shut. When it fails, that says something
about the flow, not about the job: it is retried with its attempt given back, even the last
one. A job that was leased a hundred times has had its share of that, and then uses attempts
like any other, so that no job goes on for ever. Bury still buries.

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
from async_jobs.core.lifecycle import Move
from async_jobs.core.record import error_record, plain_error, result_json
from async_jobs.errors import Backpressure, Bury, Cancel, InvalidJob, Retry, Snooze
from async_jobs.models import BackoffPolicy, JobStatus, StartedJob

LONGEST_WAIT_SECONDS = 10 * 366 * 86_400.0
MOST_LEASES_OF_A_PROBE = 100


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
    the ending says about the job's flow, None if it says nothing.
    """

    move: Move
    status: JobStatus
    delay_seconds: float | None = None
    error_json: str | None = None
    result_json: str | None = None
    gives_attempt_back: bool = False
    sign: Sign | None = None
    error: dict[str, Any] | None = field(default=None, repr=False)


def decide(job: StartedJob, ending: Ending, *, random: float) -> Outcome:
    """What becomes of *job*; *random* in [0, 1) feeds the backoff's jitter."""
    match ending:
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
            return _failed(job, error, random)


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
    for_nothing = job.probe and job.lease_seq <= MOST_LEASES_OF_A_PROBE
    if isinstance(error, Bury) or (job.attempts >= job.max_attempts and not for_nothing):
        return replace(_with_error(Move.BURY, JobStatus.DEAD, record), sign=Sign.FAILS)
    delay = _wait(error.after_seconds) if isinstance(error, Retry) else None
    if delay is None:
        delay = delay_after(_policy_of(job), job.attempts, random=random)
    retried = _with_error(Move.RETRY, JobStatus.PENDING, record, delay)
    return replace(retried, gives_attempt_back=for_nothing, sign=Sign.FAILS)


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
