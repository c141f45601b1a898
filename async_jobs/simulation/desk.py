"""Decides which waiting job gets a free slot, as a scheduler at its table does. Pure.

    in order    nothing is late and the next job's tenant has room: that job. The scheduler takes
                it with one statement, without a look at flows
    chosen      something is late, or a bound stands in the way: `core.fairness.choose` decides
                among the lanes that can win, with the credits and run times of a scheduler

Other policies than ours know no late jobs; bounds of tenants hold for all of them. Where late
jobs are dropped none is ever seen waiting, so pressure lasts for a while after each drop: without
that, one tenant's urgent jobs would crowd out the others between two drops.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from async_jobs.core.fairness import PRESSURE_AFTER_DROP_SECONDS, Credits, Flow, Terms, choose
from async_jobs.core.run_times import RunTimes
from async_jobs.simulation.arrivals import Arrival
from async_jobs.simulation.backlog import Backlog, SimulatedLane, Waiting
from async_jobs.simulation.policies import Lateness, Policy, Setup
from async_jobs.simulation.ranking import FLOOR, Ranking

LEARN_EVERY_SECONDS = 0.5
MOST_RUNS = 200
"""A scheduler looks at the newest finished jobs only, and so often."""

MOST_CHANGED = 10_000
"""After so many changes without pressure, ranking all lanes anew is no more work."""

Drop = Callable[[Waiting, float], None]
"""Told of a job that is given up, and when."""


class Desk:
    """The waiting jobs of a use case, what tenants hold, and who is next."""

    def __init__(self, setup: Setup) -> None:
        self.backlog = Backlog()
        self._setup = setup
        self._has_late_lanes = setup.policy is Policy.RECOMMENDED
        self._drops = setup.late is Lateness.DROP
        self._bounds = bool(setup.max_concurrent)
        self._held: dict[str, int] = {}
        self._jobs_of: dict[str, int] = {}
        self._total_weight = 0.0
        self._dropped_at = -math.inf
        self._credits = Credits()
        self._run_times = RunTimes()
        self._runs: deque[Arrival] = deque(maxlen=MOST_RUNS)
        self._learned_at = -math.inf
        self._known: set[tuple[str, str]] = set()
        self._least_means: dict[str, float] = {}
        self._ranking = Ranking(self._held, self._room if self._bounds else None, self._least_mean)
        self._is_ranked = False
        self._ranked_under_pressure = False
        self._changed: list[SimulatedLane] = []

    def add(self, arrival: Arrival, attempt: int, run_at: float, urgency: float) -> None:
        """A job has become due."""
        tenant = arrival.tenant_id
        jobs = self._jobs_of.get(tenant, 0)
        self._jobs_of[tenant] = jobs + 1
        if not jobs:
            self._total_weight += self._setup.weight_of(tenant)
        place = self.backlog.add(arrival, attempt=attempt, run_at=run_at, urgency=urgency)
        lane = place.job.lanes.timely
        if self._is_ranked and lane.places[0] is place:
            self._changed.append(lane)

    def finish(self, job: Waiting) -> None:
        """A job's slot is free again."""
        tenant = job.arrival.tenant_id
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._runs.append(job.arrival)
        self._leave(tenant)
        if self._is_ranked:
            self._changed += self.backlog.lanes_of.get(tenant, ())

    def choose(self, now: float, drop: Drop) -> Waiting | None:
        """The job that gets the free slot, or None if nothing may start."""
        if self._has_late_lanes:
            self._part_late(now, drop)
        job = self._next(now)
        while job is not None and self._drops and job.deadline_at < now:
            drop(job, now)
            self._leave(job.arrival.tenant_id)
            job = self._next(now)
        if job is not None:
            tenant = job.arrival.tenant_id
            self._held[tenant] = self._held.get(tenant, 0) + 1
        return job

    def _part_late(self, now: float, drop: Drop) -> None:
        """Move what has become late to its lane, or drop it."""
        while (first := self.backlog.first()) is not None and first[0] < now:
            if self._drops:
                self._dropped_at = now
                drop(self.backlog.take_first(), now)
                self._leave(first.job.arrival.tenant_id)
                continue
            lane = self.backlog.now_late()
            if self._is_ranked and len(lane.places) == 1:
                self._changed.append(lane)

    def _next(self, now: float) -> Waiting | None:
        pressure = self._is_pressed(now)
        if pressure or (self._bounds and self._is_bound()):
            return self._chosen(now, pressure=pressure)
        if self._bounds or len(self._changed) > MOST_CHANGED:
            self._is_ranked = False
            self._changed.clear()
        return self.backlog.take_first() if self.backlog.first() is not None else None

    def _is_pressed(self, now: float) -> bool:
        return self.backlog.late > 0 or now - self._dropped_at < PRESSURE_AFTER_DROP_SECONDS

    def _is_bound(self) -> bool:
        """Whether a bound stands in the way, or did while jobs have been waiting."""
        first = self.backlog.first()
        return first is not None and (
            self._is_ranked or self._room(first.job.arrival.tenant_id) <= 0
        )

    def _chosen(self, now: float, *, pressure: bool) -> Waiting | None:
        if pressure and now - self._learned_at >= LEARN_EVERY_SECONDS:
            self._learn(now)
        terms = Terms(
            capacity=self._setup.capacity,
            now=now,
            pressure=pressure,
            total_weight=self._total_weight,
            weight_of=self._setup.weight_of,
            mean_seconds=self._run_times.mean_seconds,
        )
        lanes = self._contenders(terms)
        tenants = {lane.flow.tenant_id for lane in lanes}
        chosen = choose(
            lanes,
            terms,
            slots=1,
            held={each: self._held.get(each, 0) for each in tenants},
            room={each: self._room(each) for each in tenants} if self._bounds else {},
            credits=self._credits,
        )
        for job in chosen:
            self.backlog.taken(job)
        return chosen[0] if chosen else None

    def _contenders(self, terms: Terms) -> list[SimulatedLane]:
        """The lanes that can win."""
        if self._is_ranked and self._ranked_under_pressure == terms.pressure:
            self._ranking.renew(self._changed, terms)
        else:
            self._ranking.renew_all(self.backlog.lanes(), terms)
            self._is_ranked, self._ranked_under_pressure = True, terms.pressure
        self._changed.clear()
        return self._ranking.best(terms)

    def _learn(self, now: float) -> None:
        """How long jobs ran lately; ranks depend on it, of unknown flows on their type's."""
        self._learned_at = now
        ran = {(each.tenant_id, each.type) for each in self._runs}
        self._known |= ran
        for each in self._runs:
            self._run_times.add(each.tenant_id, each.type, each.run_seconds)
        self._runs.clear()
        fallen = {type for type in {type for _, type in ran} if self._has_fallen(type)}
        if self._is_ranked:
            lanes_of = self.backlog.lanes_of
            self._changed += [
                lane
                for tenant, type in ran
                for lane in lanes_of.get(tenant, ())
                if lane.flow.type == type
            ]
            if fallen:
                self._changed += [
                    lane
                    for lane in self.backlog.lanes()
                    if lane.flow.type in fallen and lane.flow[:2] not in self._known
                ]

    def _has_fallen(self, type: str) -> bool:
        """Whether jobs of a type run shorter than the ranks of its unknown flows allow for."""
        mean, least = self._run_times.mean_seconds(Flow("", type)), self._least_means.get(type)
        if least is not None and least <= mean <= least / FLOOR**2:
            return False
        self._least_means[type] = FLOOR * mean
        return least is not None and mean < least

    def _least_mean(self, flow: Flow) -> float:
        """What a job of *flow* runs at least, as long as nothing is ranked anew."""
        if flow[:2] in self._known:
            return self._run_times.mean_seconds(flow)
        return self._least_means.get(flow.type, 0.0)

    def _leave(self, tenant_id: str) -> None:
        """A tenant has one job less; without the last one, the shares of all others grow."""
        self._jobs_of[tenant_id] -= 1
        if not self._jobs_of[tenant_id]:
            del self._jobs_of[tenant_id]
            self._total_weight -= self._setup.weight_of(tenant_id)
            self.backlog.forget(tenant_id)
            self._is_ranked = self._is_ranked and self._ranking.holds(self._total_weight)

    def _room(self, tenant_id: str) -> int:
        return self._setup.most_held(tenant_id) - self._held.get(tenant_id, 0)
