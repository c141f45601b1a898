"""Autoscaling tried on a burst: by what promises need, and by how many jobs wait. Pure.

A fleet of workers with some slots each. Every `LOOK_EVERY_SECONDS` a rule says how many workers
there should be. A new one works after `BOOT_SECONDS` and is paid from the moment it is asked for;
one too many goes when it has been one too many for `STABLE_SECONDS`, as autoscalers do it.

The workload is a service under a steady load of jobs with half a minute of tolerance, into
which reports come that may wait two hours, and later jobs that may wait two minutes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from async_jobs.core.demand import EDGES_SECONDS, Step
from async_jobs.core.scaling import Load, scaling
from async_jobs.simulation.arrivals import Arrival, Workload
from async_jobs.simulation.engine import simulate
from async_jobs.simulation.policies import Setup

LOOK_EVERY_SECONDS = 15.0
BOOT_SECONDS = 60.0
STABLE_SECONDS = 300.0
SLOTS_PER_WORKER = 10
MOST_WORKERS = 100
DEPTHS = (10, 50, 200, 1_000)
"""Jobs for each worker that rules by depth are tried with."""
MEAN_RUN_SECONDS = 2.0
PER_SECOND = 5.0
PATIENT_JOBS, URGENT_JOBS = 20_000, 1_500

Rule = Callable[[float, Sequence[float], int], int]
"""How many workers there should be, by the time, the waiting jobs' deadlines and what runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingFigures:
    """What a rule came to."""

    rule: str
    jobs: int
    late: int
    worst_seconds: float
    worker_hours: float
    most_workers: int

    @property
    def late_share(self) -> float:
        """The part of the jobs that started late."""
        return self.late / self.jobs if self.jobs else 0.0


class WorkerFleet:
    """Workers that boot and go as *rule* says."""

    def __init__(self, rule: Rule) -> None:
        self.next_at = 0.0
        self.slots = SLOTS_PER_WORKER
        self.most_workers = 1
        self.worker_seconds = 0.0
        self._rule = rule
        self._working = 1
        self._booting: deque[float] = deque()
        self._asked: deque[tuple[float, int]] = deque()

    def look(self, now: float, deadlines: Sequence[float], running: int) -> None:
        while self._booting and self._booting[0] <= now:
            self._booting.popleft()
            self._working += 1
        asked = max(1, min(MOST_WORKERS, self._rule(now, deadlines, running)))
        self._asked.append((now, asked))
        while self._asked[0][0] <= now - STABLE_SECONDS:
            self._asked.popleft()
        self._resize(now, asked, lately=max(workers for _, workers in self._asked))
        workers = self._working + len(self._booting)
        self.most_workers = max(self.most_workers, workers)
        self.worker_seconds += workers * LOOK_EVERY_SECONDS
        self.slots = self._working * SLOTS_PER_WORKER
        self.next_at = now + LOOK_EVERY_SECONDS

    def _resize(self, now: float, asked: int, *, lately: int) -> None:
        workers = self._working + len(self._booting)
        for _ in range(asked - workers):
            self._booting.append(now + BOOT_SECONDS)
        for _ in range(workers - lately):
            if self._booting:
                self._booting.pop()
            else:
                self._working -= 1


def by_depth(jobs_per_worker: int) -> Rule:
    """A worker for so many jobs that wait or run, as queue scalers count them."""
    return lambda now, deadlines, running: math.ceil((len(deadlines) + running) / jobs_per_worker)


def by_promises(now: float, deadlines: Sequence[float], running: int) -> int:
    """What `core.scaling` says, with the figures that the SLO record would have."""
    load = Load(
        use_case="burst",
        profile=_profile(now, deadlines),
        in_flight=running,
        capacity=MOST_WORKERS * SLOTS_PER_WORKER,
        mean_run_seconds=MEAN_RUN_SECONDS,
        arrivals=((30.0, PER_SECOND),),
    )
    lead_seconds = BOOT_SECONDS + LOOK_EVERY_SECONDS
    return scaling(
        [load],
        slots_per_worker=SLOTS_PER_WORKER,
        within_seconds=math.inf,
        lead_seconds=lead_seconds,
    ).workers


def _profile(now: float, deadlines: Sequence[float]) -> list[Step]:
    ordered = sorted(deadline - now for deadline in deadlines)
    edges = [-math.inf, *EDGES_SECONDS]
    return [
        Step(until, bisect_left(ordered, until) - bisect_left(ordered, after))
        for after, until in pairwise(edges)
    ]


def burst(*, seed: int = 1, scale: float = 1.0, seconds: float = 10_800.0) -> Workload:
    """A steady load, patient reports after a sixth of the *seconds*, urgent jobs after two thirds.

    *scale* is for the sizes of the two bursts.
    """
    random = Random(seed)
    arrivals = [_job(random, at, 30.0) for at in _steady(random, seconds)]
    arrivals += [
        _job(random, seconds / 6 + 60 * random.random(), 7_200.0)
        for _ in range(round(PATIENT_JOBS * scale))
    ]
    arrivals += [
        _job(random, 2 * seconds / 3 + 10 * random.random(), 120.0)
        for _ in range(round(URGENT_JOBS * scale))
    ]
    return Workload(name="burst", arrivals=sorted(arrivals), capacity=1, noisy=frozenset())


def _steady(random: Random, until: float) -> Sequence[float]:
    at, found = 0.0, []
    while (at := at + random.expovariate(PER_SECOND)) < until:
        found.append(at)
    return found


def _job(random: Random, at: float, tolerance_seconds: float) -> Arrival:
    return Arrival(
        run_at=at,
        tenant_id="acme",
        type="job",
        run_seconds=random.expovariate(1 / MEAN_RUN_SECONDS),
        delay_tolerance_seconds=tolerance_seconds,
    )


def compare(workload: Workload) -> list[ScalingFigures]:
    """The rule by promises, then those by depth, on the same jobs."""
    rules: dict[str, Rule] = {"promises": by_promises}
    rules |= {f"depth, {depth:,} jobs a worker": by_depth(depth) for depth in DEPTHS}
    return [_tried(name, rule, workload) for name, rule in rules.items()]


def _tried(name: str, rule: Rule, workload: Workload) -> ScalingFigures:
    fleet = WorkerFleet(rule)
    setup = Setup(capacity=MOST_WORKERS * SLOTS_PER_WORKER)
    figures = simulate(workload, setup, fleet=fleet)
    return ScalingFigures(
        rule=name,
        jobs=figures.jobs,
        late=figures.late,
        worst_seconds=figures.worst_seconds,
        worker_hours=fleet.worker_seconds / 3_600,
        most_workers=fleet.most_workers,
    )
