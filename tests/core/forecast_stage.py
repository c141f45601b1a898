"""A use case played on a clock: deadlines first, a tenth of the starts for late jobs.

Every job is forecast when it arrives, by the real code and from what it would be told: the
demand at the last full second and what came since.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from async_jobs.core.forecast import Demand, Finished, Pace, pace, starts_in

READ_EVERY_SECONDS = 1.0


@dataclass(slots=True)
class Played:
    """One job: when it came, until when it may start, what was said, when it did start."""

    at: float
    tolerance: float
    run_seconds: float
    feasible: bool | None = None
    predicted_at: float = 0.0
    started_at: float = 0.0

    @property
    def deadline(self) -> float:
        return self.at + self.tolerance

    @property
    def kept(self) -> bool:
        return self.started_at <= self.deadline


@dataclass
class Stage:
    capacity: int
    workers: int
    waiting: list[tuple[float, int, Played]] = field(default_factory=list)
    running: list[tuple[float, int, Played]] = field(default_factory=list)
    finished: list[tuple[float, Played]] = field(default_factory=list)
    came: list[Played] = field(default_factory=list)
    known: Demand | None = None
    expected: Pace | None = None
    read_at: float = -10.0
    added: list[float] = field(default_factory=list)
    credit: float = 0.0

    def play(self, jobs: Sequence[Played]) -> list[Played]:
        for number, job in enumerate(jobs):
            self.run_until(job.at)
            self.forecast(job)
            self.came.append(job)
            heapq.heappush(self.waiting, (job.deadline, number, job))
            self.fill(job.at)
        self.run_until(float("inf"))
        return list(jobs)

    def run_until(self, at: float) -> None:
        while self.running and self.running[0][0] <= at:
            ended_at, _, job = heapq.heappop(self.running)
            self.finished.append((ended_at, job))
            self.fill(ended_at)

    def fill(self, now: float) -> None:
        while self.waiting and len(self.running) < min(self.capacity, self.workers):
            job = self.choose(now)
            job.started_at = now
            heapq.heappush(self.running, (now + job.run_seconds, id(job), job))

    def choose(self, now: float) -> Played:
        late = [one for one in self.waiting if one[0] < now] if self.waiting[0][0] < now else []
        self.credit += 0.1 if late else 0.0
        if late and len(late) < len(self.waiting) and self.credit < 1:
            chosen = min(one for one in self.waiting if one[0] >= now)
            self.waiting.remove(chosen)
            heapq.heapify(self.waiting)
            return chosen[2]
        self.credit = max(0.0, self.credit - 1)
        return heapq.heappop(self.waiting)[2]

    def forecast(self, job: Played) -> None:
        if job.at - self.read_at >= READ_EVERY_SECONDS:
            self.known, self.read_at, self.added = self.demand(job.at), job.at, []
            self.expected = pace(self.known, self.capacity)
        if self.known is None or self.expected is None:
            return
        age = job.at - self.read_at
        wait = starts_in(
            self.known,
            self.expected,
            slack_seconds=job.tolerance,
            more_ahead=bisect_right(self.added, job.tolerance + age),
            age_seconds=age,
        )
        insort(self.added, job.tolerance + age)
        job.predicted_at = job.at + wait
        job.feasible = job.predicted_at <= job.deadline

    def demand(self, now: float) -> Demand:
        slacks = sorted(deadline - now for deadline, _, _ in self.waiting if deadline >= now)
        head = min(self.waiting, default=None)
        newest = self.came[-500:]
        return Demand(
            marks=slacks[:5000],
            places=list(range(1, len(slacks[:5000]) + 1)),
            cut=len(slacks) >= 5000,
            any_late=len(slacks) < len(self.waiting),
            in_flight=len(self.running),
            head_waits=None if head is None else now - head[2].at,
            tolerances=[job.tolerance for job in newest],
            arriving_seconds=now - newest[0].at if newest else 0.0,
            finished=[
                Finished(
                    due_ago=now - job.at, started_ago=now - job.started_at, finished_ago=now - ended
                )
                for ended, job in self.finished[-200:]
            ],
        )


def arrivals(
    rate: float,
    seconds: float,
    tolerances: Sequence[float],
    *,
    run_seconds: float = 1.0,
    seed: int = 1,
    start: float = 0.0,
) -> list[Played]:
    """Jobs that come at random, *rate* a second, with one of these tolerances each."""
    dice = random.Random(seed)
    at, jobs = start, []
    while (at := at + dice.expovariate(rate)) < start + seconds:
        ran = dice.expovariate(1 / run_seconds)
        jobs.append(Played(at, dice.choice(tolerances), ran))
    return jobs


def burst(count: int, at: float, tolerance: float, *, run_seconds: float = 1.0) -> list[Played]:
    """Jobs that come within a second, all alike."""
    dice = random.Random(count)
    return [
        Played(at + number / count, tolerance, dice.expovariate(1 / run_seconds))
        for number in range(count)
    ]
