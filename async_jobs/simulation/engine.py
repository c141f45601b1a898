"""Runs a workload through the scheduler's own decisions, on a clock of its own. Pure.

    event       a job becomes due, a slot frees, a failed job's backoff ends: whatever is next
    refill      at every event, until no slot is free or nothing may start
    decision    the desk's, by the code that the scheduler uses

Jobs take the time that the workload says and are never preempted. A failed attempt holds its
slot as long as a successful one; the next is due after the backoff, with a deadline of its own.
Nothing depends on the machine or on the order of a dict: the same input gives the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Protocol

from async_jobs.simulation.arrivals import Arrival, Workload
from async_jobs.simulation.backlog import Waiting
from async_jobs.simulation.desk import Desk
from async_jobs.simulation.policies import Setup
from async_jobs.simulation.tally import Figures, Tally

TELL_EVERY = 10_000

Progress = Callable[[int], None]
"""Told from time to time how many jobs have arrived."""


class Fleet(Protocol):
    """Slots that come and go; looked at whenever `next_at` has come."""

    next_at: float
    slots: int

    def look(self, now: float, deadlines: Sequence[float], running: int) -> None:
        """Decide by the waiting jobs' *deadlines* and set `slots` and `next_at`."""


class TooLate(Exception):
    """More jobs are late than matter to who asked."""


def simulate(
    workload: Workload,
    setup: Setup,
    *,
    most_late: int | None = None,
    progress: Progress | None = None,
    fleet: Fleet | None = None,
) -> Figures:
    """Run *workload* to its end, on the slots of the *setup* or those that *fleet* has.

    Raises TooLate as soon as more than *most_late* jobs are late.
    """
    simulation = _Simulation(workload, setup, most_late, fleet)
    simulation.run(progress or (lambda arrived: None))
    return simulation.tally.figures(capacity=setup.capacity, ended_at=simulation.now)


class _Simulation:
    """The state of one run."""

    def __init__(
        self, workload: Workload, setup: Setup, most_late: int | None, fleet: Fleet | None
    ) -> None:
        self.now = 0.0
        self.tally = Tally(workload)
        self._arrivals = workload.arrivals
        self._setup = setup
        self._most_late = math.inf if most_late is None else most_late
        self._urgency = setup.policy.urgency
        self._running: list[tuple[float, int, Waiting]] = []
        self._retries: list[tuple[float, int, Arrival, int]] = []
        self._count = 0
        self._next = 0
        self._desk = Desk(setup)
        self._fleet = fleet

    def run(self, progress: Progress) -> None:
        while (at := self._next_at()) < math.inf:
            self.now = at
            self._finish_due()
            self._add_due(progress)
            self._look_at_fleet()
            self._refill()

    def _next_at(self) -> float:
        arrivals, number = self._arrivals, self._next
        at = arrivals[number][0] if number < len(arrivals) else math.inf
        if self._running and self._running[0][0] < at:
            at = self._running[0][0]
        if self._retries and self._retries[0][0] < at:
            at = self._retries[0][0]
        if self._fleet is not None and (at < math.inf or self._desk.backlog.waiting):
            at = min(at, self._fleet.next_at)
        return at

    def _look_at_fleet(self) -> None:
        if self._fleet is not None and self._fleet.next_at <= self.now:
            lanes = self._desk.backlog.lanes()
            deadlines = [place.job.deadline_at for lane in lanes for place in lane.places]
            self._fleet.look(self.now, deadlines, len(self._running))

    def _finish_due(self) -> None:
        running, now = self._running, self.now
        while running and running[0][0] <= now:
            _, _, job = heappop(running)
            self._desk.finish(job)
            arrival = job.arrival
            if arrival.failing_attempts and job.attempt < arrival.attempts:
                due_at = now + self._setup.backoff_seconds
                heappush(self._retries, (due_at, self._number(), arrival, job.attempt + 1))

    def _add_due(self, progress: Progress) -> None:
        retries, arrivals, now = self._retries, self._arrivals, self.now
        while retries and retries[0][0] <= now:
            run_at, _, arrival, attempt = heappop(retries)
            self._desk.add(arrival, attempt, run_at, self._urgency(arrival, run_at))
        while self._next < len(arrivals) and (arrival := arrivals[self._next])[0] <= now:
            self._next += 1
            self._desk.add(arrival, 1, arrival[0], self._urgency(arrival, arrival[0]))
            if self._next % TELL_EVERY == 0:
                progress(self._next)

    def _refill(self) -> None:
        desk, running = self._desk, self._running
        capacity = self._setup.capacity if self._fleet is None else self._fleet.slots
        while len(running) < capacity and desk.backlog.waiting:
            job = desk.choose(self.now, self.tally.drop)
            if job is None:
                break
            heappush(running, (self.now + job.arrival.run_seconds, self._number(), job))
            self.tally.start(job, self.now, running=len(running))
        if self.tally.late + desk.backlog.late > self._most_late:
            raise TooLate

    def _number(self) -> int:
        self._count += 1
        return self._count
