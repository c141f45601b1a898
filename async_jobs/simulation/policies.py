"""The orders that can be compared: ours, and what one would have without it. Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from async_jobs.simulation.arrivals import DEFAULT_BACKOFF_SECONDS, Arrival


class Policy(StrEnum):
    """In which order waiting jobs start."""

    RECOMMENDED = "recommended"
    EDF = "edf"
    FIFO = "fifo"
    PRIORITY = "priority"

    @property
    def urgency(self) -> Callable[[Arrival, float], float]:
        """What jobs are ranked by (the least first), from a job and its `run_at` of now."""
        return _URGENCIES[self]


class Lateness(StrEnum):
    """What becomes of a job whose deadline has passed."""

    RUN = "run"
    DROP = "drop"


_URGENCIES: dict[Policy, Callable[[Arrival, float], float]] = {
    Policy.RECOMMENDED: lambda job, run_at: run_at + job.delay_tolerance_seconds,
    Policy.EDF: lambda job, run_at: run_at + job.delay_tolerance_seconds,
    Policy.FIFO: lambda job, run_at: run_at,
    Policy.PRIORITY: lambda job, run_at: -job.priority,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What one simulation is run with.

    `max_concurrent` bounds what a tenant holds, `"*"` all that are not named; so do the
    `weights`, which are 1 where nothing is said.
    """

    capacity: int
    policy: Policy = Policy.RECOMMENDED
    weights: Mapping[str, float] = field(default_factory=dict)
    max_concurrent: Mapping[str, int] = field(default_factory=dict)
    late: Lateness = Lateness.RUN
    backoff_seconds: float = DEFAULT_BACKOFF_SECONDS

    def weight_of(self, tenant_id: str) -> float:
        return self.weights.get(tenant_id, self.weights.get("*", 1.0))

    def most_held(self, tenant_id: str) -> int:
        """The most slots a tenant may hold."""
        return self.max_concurrent.get(tenant_id, self.max_concurrent.get("*", sys.maxsize))
