"""Forecasts for the jobs that a process enqueues.

The demand of a use case is read at most once a second, and what this process has enqueued
since is added, so that enqueueing stays one statement. A demand that cannot be read in a
quarter of a second is not waited for: there is no forecast then, for ten seconds, and the
enqueue goes on. Kept for each connection pool, because a router may make a service for
every request.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from weakref import WeakKeyDictionary

from async_jobs.core.forecast import Demand, Pace, pace, starts_in
from async_jobs.models import AcceptedJob

READ_EVERY_SECONDS = 1.0
READ_WITHIN_SECONDS = 0.25
AFTER_FAILURE_SECONDS = 10.0
LONGEST_SECONDS = 10 * 366 * 86_400.0


class DemandDesk(Protocol):
    """The store's move that forecasts are made from."""

    @property
    def origin(self) -> object:
        """What the demand comes from: the same for every store on one pool."""

    async def read_demand(self, use_case: str) -> Demand: ...


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a job will start, None if nothing was measured, and whether that is in time."""

    predicted_start_at: datetime | None = None
    feasible: bool = True


UNKNOWN = Forecast()


@dataclass(slots=True)
class Known:
    """What is known of one use case; `added` are the slacks of jobs enqueued since, sorted."""

    demand: Demand | None = None
    pace: Pace | None = None
    read_at: float = 0.0
    next_read_at: float = 0.0
    reading: bool = False
    added: list[float] = field(default_factory=list)


_known: WeakKeyDictionary[object, dict[str, Known]] = WeakKeyDictionary()


class Forecaster:
    """Forecasts from the demand that *desk* reads."""

    def __init__(
        self, desk: DemandDesk, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._desk = desk
        self._monotonic = monotonic

    async def forecast(
        self, use_case: str, capacity: int, jobs: Sequence[AcceptedJob], now: datetime
    ) -> list[Forecast]:
        """A forecast for each of *jobs*, which are enqueued together; counts none of them yet."""
        known = await self._up_to_date(use_case, capacity)
        if known.demand is None or known.pace is None:
            return [UNKNOWN] * len(jobs)
        in_order = sorted(range(len(jobs)), key=lambda each: deadline_of(jobs[each], now))
        found = {
            index: self._one(known, known.demand, known.pace, jobs[index], now, siblings)
            for siblings, index in enumerate(in_order)
        }
        return [found[index] for index in range(len(jobs))]

    def count(self, jobs: Sequence[AcceptedJob], now: datetime) -> None:
        """*jobs* were stored: those that come after them wait behind them."""
        at = self._monotonic()
        for use_case in {job.use_case for job in jobs}:
            known = self._of(use_case)
            if known.pace is not None:
                due = [job for job in jobs if job.use_case == use_case and _is_due(job, now)]
                age = at - known.read_at
                slacks = [(deadline_of(job, now) - now).total_seconds() + age for job in due]
                _add(known.added, slacks)

    def _one(
        self,
        known: Known,
        demand: Demand,
        expected: Pace,
        job: AcceptedJob,
        now: datetime,
        siblings: int,
    ) -> Forecast:
        age = self._monotonic() - known.read_at
        deadline_at = deadline_of(job, now)
        slack = (deadline_at - now).total_seconds()
        seconds = starts_in(
            demand,
            expected,
            slack_seconds=slack,
            run_in_seconds=max(0.0, ((job.run_at or now) - now).total_seconds()),
            more_ahead=siblings + bisect_right(known.added, slack + age),
            age_seconds=age,
        )
        predicted = now + timedelta(seconds=min(seconds, LONGEST_SECONDS))
        return Forecast(predicted, feasible=predicted <= deadline_at)

    def _of(self, use_case: str) -> Known:
        return _known.setdefault(self._desk.origin, {}).setdefault(use_case, Known())

    async def _up_to_date(self, use_case: str, capacity: int) -> Known:
        known = self._of(use_case)
        at = self._monotonic()
        if at < known.next_read_at or (known.reading and known.demand is not None):
            return known
        known.reading = True
        try:
            async with asyncio.timeout(READ_WITHIN_SECONDS):
                demand = await self._desk.read_demand(use_case)
        except Exception:
            # Whatever it was: a forecast is no reason to refuse a job.
            known.demand, known.next_read_at = None, at + AFTER_FAILURE_SECONDS
        else:
            known.demand, known.pace = demand, pace(demand, capacity)
            known.read_at, known.next_read_at = at, at + READ_EVERY_SECONDS
        finally:
            known.reading = False
            known.added = []
        return known


def _is_due(job: AcceptedJob, now: datetime) -> bool:
    return job.run_at is None or job.run_at <= now


def _add(known: list[float], slacks: Sequence[float]) -> None:
    """Add *slacks* to what is known, and keep it sorted."""
    if len(slacks) == 1:
        insort(known, slacks[0])
    else:
        known.extend(slacks)
        known.sort()


def deadline_of(job: AcceptedJob, now: datetime) -> datetime:
    """The deadline that *job* gets when it is stored *now*."""
    run_at = job.run_at or now
    deadline_at = run_at + timedelta(seconds=job.delay_tolerance_seconds)
    if job.latest_deadline_at is None:
        return deadline_at
    return max(run_at, min(deadline_at, job.latest_deadline_at))
