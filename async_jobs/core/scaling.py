"""How many workers it takes to keep the promises of the next minutes. Pure.

Slots come from `demand.required_slots`: what waits, what runs and what keeps arriving, against the
time until each deadline, as far as the horizon. Two things lie between slots and workers:

    lead      a new worker runs nothing before it has started, so every deadline is that much
              nearer; jobs that are due earlier are caught up as late ones are
    capacity  the scheduler leases no more than that, so more slots would stand empty
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from async_jobs.core.demand import Arrivals, Step, required_slots
from async_jobs.core.forecast import Demand
from async_jobs.core.run_times import UNKNOWN_SECONDS

WITHIN_SECONDS = 600.0
LEAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A use case as it is now."""

    use_case: str
    profile: Sequence[Step]
    in_flight: int
    capacity: int
    mean_run_seconds: float | None = None
    arrivals: Arrivals = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCaseNeed:
    """Slots and workers that one use case needs; `at_least`: counting was cut off.

    `wanted_slots` are what its promises ask for, `slots` what its capacity allows of them.
    """

    use_case: str
    wanted_slots: int
    slots: int
    workers: int
    capacity: int
    in_flight: int
    at_least: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Workers for all use cases together, which share them, and for each by itself."""

    workers: int
    slots: int
    slots_per_worker: int
    within_seconds: float
    lead_seconds: float
    use_cases: Sequence[UseCaseNeed]


def scaling(
    loads: Sequence[Load],
    *,
    slots_per_worker: int,
    within_seconds: float = WITHIN_SECONDS,
    lead_seconds: float = LEAD_SECONDS,
) -> Scaling:
    """The workers that *loads* need, each with so many slots."""
    needs = [
        _need(load, slots_per_worker, within_seconds=within_seconds, lead_seconds=lead_seconds)
        for load in loads
    ]
    slots = sum(need.slots for need in needs)
    return Scaling(
        workers=math.ceil(slots / slots_per_worker),
        slots=slots,
        slots_per_worker=slots_per_worker,
        within_seconds=within_seconds,
        lead_seconds=lead_seconds,
        use_cases=needs,
    )


def _need(
    load: Load, slots_per_worker: int, *, within_seconds: float, lead_seconds: float
) -> UseCaseNeed:
    nearer = [
        Step(max(0.0, step.until_seconds - lead_seconds), step.jobs, step.cut)
        for step in load.profile
        if step.until_seconds <= within_seconds
    ]
    mean = UNKNOWN_SECONDS if load.mean_run_seconds is None else load.mean_run_seconds
    need = required_slots(
        nearer, mean_run_seconds=mean, in_flight=load.in_flight, arrivals=load.arrivals
    )
    slots = min(need.slots, load.capacity)
    return UseCaseNeed(
        use_case=load.use_case,
        wanted_slots=need.slots,
        slots=slots,
        workers=math.ceil(slots / slots_per_worker),
        capacity=load.capacity,
        in_flight=load.in_flight,
        at_least=need.at_least,
    )


def arrivals_of(demand: Demand) -> Arrivals:
    """What arrived lately, by tolerance, as a rate."""
    if demand.arriving_seconds <= 0:
        return ()
    each = 1 / demand.arriving_seconds
    return [(tolerance, each) for tolerance in demand.tolerances]
