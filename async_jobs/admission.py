"""Refuses new jobs of tenants above their share when a use case cannot keep their deadlines.

    is the deadline in danger?     the waiting jobs with earlier deadlines fill the capacity for
                                   longer than the tolerance, by run times that were measured
    whose fault is it?             the tenant has more waiting than its share can do in that time,
                                   and others have work too
    then                           Overloaded, with a time to come back

Everybody else is let in. Without enough measured runs nobody is refused, and only jobs
that are due now are looked at. The reads are bounded and remembered for a moment, so a
use case in good health costs a few short reads a second while jobs come in, and none otherwise.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from async_jobs.config import AsyncJobsConfig, UseCaseConfig
from async_jobs.core.overload import Standing, jobs_that_fit, refusal_seconds, rounded_up
from async_jobs.errors import Overloaded
from async_jobs.models import AcceptedJob
from async_jobs.store.demand import Pace
from async_jobs.store.door import Connection
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import OverloadRefused

LEAST_MEASURED = 10
MOST_COUNTED = 20_000
TELL_EVERY_SECONDS = 10.0
MOST_REMEMBERED = 1_000


class Demand(Protocol):
    """What the store knows about demand."""

    async def get_pace(self, use_case: str, *, on: Connection | None) -> Pace: ...

    async def count_due(
        self, use_case: str, *, within_seconds: float, most: int, on: Connection | None
    ) -> int: ...

    async def count_due_of(
        self,
        use_case: str,
        tenant_id: str,
        *,
        within_seconds: float,
        most: int,
        on: Connection | None,
    ) -> int: ...

    async def find_waiting_tenants(
        self, use_case: str, *, on: Connection | None
    ) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class _Arrival:
    """Due jobs of one tenant in one use case that came together."""

    use_case: UseCaseConfig
    tenant_id: str
    jobs: int
    tolerance_seconds: float


class Admission:
    """Lets jobs in or refuses them, before they are stored."""

    def __init__(self, config: AsyncJobsConfig, demand: Demand, bus: Bus) -> None:
        self._config = config
        self._demand = demand
        self._bus = bus

    async def check(
        self, jobs: Sequence[AcceptedJob], now: datetime, connection: Connection | None
    ) -> None:
        """Raise Overloaded if some of *jobs* are not let in."""
        for arrival in _arrivals(jobs, now, self._config.use_cases):
            seconds = await self._refusal_seconds(arrival, connection)
            if seconds is not None:
                self._tell(arrival, seconds)
                raise Overloaded(
                    arrival.tenant_id, arrival.use_case.name, retry_after_seconds=seconds
                )

    async def _refusal_seconds(self, arrival: _Arrival, on: Connection | None) -> float | None:
        name, tolerance = arrival.use_case.name, rounded_up(arrival.tolerance_seconds)
        pace = await self._demand.get_pace(name, on=on)
        capacity = arrival.use_case.max_concurrent if pace.capacity is None else pace.capacity
        fit = jobs_that_fit(capacity, pace.mean_seconds, tolerance)
        if pace.measured < LEAST_MEASURED or fit >= MOST_COUNTED:
            return None
        waiting = await self._demand.count_due(name, within_seconds=tolerance, most=fit + 1, on=on)
        if waiting + arrival.jobs <= fit:
            return None
        standing = await self._standing(arrival, pace, capacity, tolerance, on)
        return refusal_seconds(standing, tolerance_seconds=tolerance, random=random.random())

    async def _standing(
        self,
        arrival: _Arrival,
        pace: Pace,
        capacity: int,
        tolerance_seconds: float,
        on: Connection | None,
    ) -> Standing:
        name, tenant_id = arrival.use_case.name, arrival.tenant_id
        tenants = {*await self._demand.find_waiting_tenants(name, on=on), tenant_id}
        pending = await self._demand.count_due_of(
            name, tenant_id, within_seconds=tolerance_seconds, most=MOST_COUNTED, on=on
        )
        total_weight = sum(self._config.quota_for(each).weight for each in tenants)
        return Standing(
            pending=pending + arrival.jobs,
            share=capacity * self._config.quota_for(tenant_id).weight / total_weight,
            mean_seconds=pace.mean_seconds,
            others_wait=len(tenants) > 1,
        )

    def _tell(self, arrival: _Arrival, seconds: float) -> None:
        """Once in ten seconds for each tenant; the first one at once."""
        key = (arrival.use_case.name, arrival.tenant_id)
        told_at, untold = _told.get(key, (0.0, 0))
        untold += arrival.jobs
        now = time.monotonic()
        if told_at and now - told_at < TELL_EVERY_SECONDS:
            _told[key] = (told_at, untold)
            return
        if len(_told) >= MOST_REMEMBERED:
            _told.clear()
        _told[key] = (now, 0)
        self._bus.emit(
            OverloadRefused(
                use_case=arrival.use_case.name,
                tenant_id=arrival.tenant_id,
                jobs=untold,
                retry_after_seconds=seconds,
            )
        )


_told: dict[tuple[str, str], tuple[float, int]] = {}
"""When a refusal was told last, and how many were not: one for the process, as services may go."""


def _arrivals(
    jobs: Sequence[AcceptedJob], now: datetime, use_cases: Mapping[str, UseCaseConfig]
) -> list[_Arrival]:
    """What of *jobs* is due now and may be refused, by use case and tenant."""
    tolerances: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for job in jobs:
        due = job.run_at is None or job.run_at <= now
        if due and use_cases[job.use_case].overload == "refuse":
            tolerances[job.use_case, job.tenant_id].append(job.delay_tolerance_seconds)
    return [
        _Arrival(use_cases[use_case], tenant_id, len(found), max(found))
        for (use_case, tenant_id), found in tolerances.items()
    ]
