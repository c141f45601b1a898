"""The least capacity that keeps the promise for nearly all jobs. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from async_jobs.simulation.arrivals import Workload
from async_jobs.simulation.engine import Progress, TooLate, simulate
from async_jobs.simulation.policies import Setup

PRECISION = 0.01


def least_capacity(
    workload: Workload, setup: Setup, *, late_share: float, progress: Progress | None = None
) -> int:
    """The least capacity with at most *late_share* of the jobs late, to a hundredth.

    Found by halving: it takes for granted that more slots make fewer jobs late. Capacities
    that are too small end early, when too many jobs are late already.
    """
    most_late = math.floor(late_share * len(workload.arrivals))

    def suffices(capacity: int) -> bool:
        try:
            simulate(
                workload,
                replace(setup, capacity=capacity),
                most_late=most_late,
                progress=progress,
            )
        except TooLate:
            return False
        return True

    return _least(suffices, begin=workload.mean_slots)


def _least(suffices: Callable[[int], bool], *, begin: int) -> int:
    too_few, enough = 0, begin
    while not suffices(enough):
        too_few, enough = enough, 2 * enough
    while enough - too_few > max(1, int(PRECISION * enough)):
        middle = (too_few + enough) // 2
        if suffices(middle):
            enough = middle
        else:
            too_few = middle
    return enough
