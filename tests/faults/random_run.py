"""One long run under random faults: jobs come in, things break, and nothing may be lost.

feed      keeps some hundreds of jobs waiting until so many were acknowledged: some fail, some
          outlast their lease, some are cancelled, some have dedupe keys
strike    one fault after the other, chosen by the seed; what was broken is mended each time
drain     every job finishes, and every invariant of `audit.sql` is asked
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import psycopg
from moving_parts import open_store
from starvation import Stopwatch

from async_jobs.errors import AsyncJobsError
from async_jobs.models import NewJob
from async_jobs.service import JobService

from . import audit
from .ground import LEASE_SECONDS, SOON, SQS, TABLE, Ground, Run
from .strikes import STRIKES, Strike

BATCH = 100
MOST_WAITING = 1_000
CAPACITY = 80
DRAIN_SECONDS = 180.0
SCHEDULERS, WORKERS = 2, 3
RESUME_POSTGRES_SECONDS, RESUME_SQS_SECONDS = 6.0, 5.0

UNFINISHED = """
    SELECT (SELECT count(*) FROM jobs WHERE due)
        + (SELECT count(*) FROM jobs WHERE leased_at IS NOT NULL)
        + (SELECT count(*) FROM jobs WHERE NOT due AND leased_at IS NULL AND finished_at IS NULL)
"""
"""By three indexes: what has finished is most of the table."""
STARTED_SINCE = """
    SELECT (EXISTS (
        SELECT FROM jobs
        WHERE jobs.use_case = asked.use_case AND leased_at IS NOT NULL AND started_at > since
    ) OR EXISTS (
        SELECT FROM jobs
        WHERE jobs.use_case = asked.use_case AND finished_at > since AND started_at > since
    ))::int
    FROM (VALUES (%s::text, %s::timestamptz)) AS asked (use_case, since)
"""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is to happen. A fault begins every *every_seconds* at the earliest."""

    jobs: int
    faults: int
    seed: int
    every_seconds: float = 4.0


@dataclass
class RandomRun:
    """Carries out one plan on one run."""

    run: Run
    plan: Plan
    tell: Tell
    acknowledged: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    resumed: dict[str, list[float]] = field(default_factory=dict)

    async def go(self) -> dict[str, Any]:
        """From the first job to the summary."""
        began = time.monotonic()
        for _ in range(SCHEDULERS):
            self.run.scheduler()
        for _ in range(WORKERS):
            self.run.worker()
        await self.run.started()
        feeding = asyncio.get_running_loop().create_task(self._feed(Random(self.plan.seed)))
        try:
            await self._strike(Random(self.plan.seed + 1))
            await feeding
        finally:
            feeding.cancel()
        await self._drain()
        return {**self._summary(), "seconds": round(time.monotonic() - began, 1)}

    async def _feed(self, random: Random) -> None:
        async with open_store(self.run.dsn) as store:
            service = self.run.service(store)
            number = 0
            while self.acknowledged < self.plan.jobs:
                share = (1 + sum(self.struck.values())) / max(1, self.plan.faults)
                if self.acknowledged > share * self.plan.jobs or self._waiting() > MOST_WAITING:
                    await asyncio.sleep(0.05)
                    continue
                number += 1
                new = [_job(random, f"{number}-{each}") for each in range(BATCH)]
                await self._insist(service, random, new)

    async def _insist(self, service: JobService, random: Random, new: Sequence[NewJob]) -> None:
        """Enqueue until it is acknowledged; without an answer nobody knows, so it is repeated."""
        while True:
            with suppress(AsyncJobsError, psycopg.Error):
                stored = await service.enqueue_many(new)
                break
            await asyncio.sleep(0.1)
        for one, made in zip(new, stored, strict=True):
            self.run.told.note("stored", [made.job_id], one.dedupe_key)
        self.acknowledged += len(stored)
        self.tell("jobs", self.acknowledged, self.plan.jobs)
        cancelled = random.choice(stored).job_id
        with suppress(AsyncJobsError, psycopg.Error):
            await service.cancel(cancelled)
            self.run.told.note("cancelled", [cancelled])

    def _waiting(self) -> float:
        with suppress(psycopg.Error):
            return self.run.number(UNFINISHED)
        return MOST_WAITING + 1

    async def _strike(self, random: Random) -> None:
        for number in range(self.plan.faults):
            began = time.monotonic()
            strike = STRIKES[random.choice(sorted(STRIKES))]
            with self.run.outage() if strike.holds_up_rescue else nullcontext():
                await strike.act(self.run, random)
                await asyncio.to_thread(self.run.ground.heal)
                await self._resumes(strike)
            self._replace()
            self.struck[strike.name] += 1
            self.tell(f"faults ({strike.name})", number + 1, self.plan.faults)
            await asyncio.sleep(max(0.0, self.plan.every_seconds - (time.monotonic() - began)))

    async def _resumes(self, strike: Strike) -> None:
        """Note how long after a server's return its use case starts a job again."""
        if strike.server is None or self.acknowledged >= self.plan.jobs:
            return
        use_case = SQS if strike.server == "sqs" else TABLE
        watch, began = Stopwatch(), time.monotonic()
        [(now,)] = self.run.query("SELECT clock_timestamp()")
        # Something to start, whatever else waits.
        await self.run.put(1, use_cases=[use_case])
        while not self.run.number(STARTED_SINCE, use_case, now):
            if time.monotonic() - began > 30:
                break
            await asyncio.sleep(0.05)
        self.resumed.setdefault(strike.server, []).append(watch.seconds)

    def _replace(self) -> None:
        """New processes for those that were killed or stopped for good."""
        running = Counter(
            one.name.partition("-")[0] for one in self.run.processes if one.is_running
        )
        for _ in range(SCHEDULERS - running["scheduler"]):
            self.run.scheduler()
        for _ in range(WORKERS - running["worker"]):
            self.run.worker()

    async def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while (left := self._waiting()) and time.monotonic() < deadline:
            self.tell("left", int(left), self.plan.jobs)
            await asyncio.sleep(0.5)

    def _summary(self) -> dict[str, Any]:
        terms = self.run.terms
        with psycopg.connect(self.run.dsn, autocommit=True) as conn:
            found = audit.check(
                conn,
                terms,
                runs=self.run.runs_path,
                told=self.run.told,
                record=self.run.ground.record,
            )
            figures = audit.figures(conn, terms)
        rescue = figures.pop("slowest_rescue_seconds")
        return {
            "seed": self.plan.seed,
            "acknowledged": self.acknowledged,
            "lost": len(found.get("I01", ())) + len(found.get("I02", ())),
            **figures,
            "recovery_p100_seconds": round(LEASE_SECONDS + rescue, 2),
            "resumed_p100_seconds": {
                server: round(max(seconds), 2) for server, seconds in sorted(self.resumed.items())
            },
            "faults": dict(sorted(self.struck.items())),
            "tracebacks": sum("Traceback" in one.log for one in self.run.processes),
            "violations": {name: len(found.get(name, ())) for name in audit.INVARIANTS},
            "examples": audit.shown(found),
        }


def problems(summary: dict[str, Any]) -> list[str]:
    """What in *summary* breaks a promise; empty when all is well."""
    most = {"postgres": RESUME_POSTGRES_SECONDS, "sqs": RESUME_SQS_SECONDS}
    slow = [
        f"resumed {seconds} s after {server} came back"
        for server, seconds in summary["resumed_p100_seconds"].items()
        if seconds > most[server]
    ]
    broken = [f"{name}: {count}" for name, count in summary["violations"].items() if count]
    died = [f"{summary['tracebacks']} processes with a traceback"] if summary["tracebacks"] else []
    return [*broken, *slow, *died]


def _job(random: Random, key: str) -> NewJob:
    payload: dict[str, Any] = {"seconds": 0.02}
    if random.random() < 0.10:
        payload["fails"] = 1
    if random.random() < 0.03:
        payload["seconds"] = 1.6 * LEASE_SECONDS
    return NewJob(
        tenant_id=f"tenant-{random.randrange(5)}",
        use_case=random.choice((SQS, TABLE)),
        type="work",
        payload=payload,
        max_attempts=50,
        backoff_policy=SOON,
        dedupe_key=key if random.random() < 0.3 else None,
    )


def capacity_settings(capacity: int) -> dict[str, object]:
    """Room for slow jobs beside many quick ones."""
    return {
        "ASYNC_JOBS_MAIL_MAX_CONCURRENT": capacity,
        "ASYNC_JOBS_REPORT_MAX_CONCURRENT": capacity,
        "ASYNC_JOBS_WORKER_CONCURRENCY": capacity,
    }


def make(ground: Ground, folder: Any, plan: Plan, tell: Tell) -> RandomRun:
    """A random run on *ground*, whose processes log into *folder*."""
    capacity = CAPACITY
    run = Run(
        ground.database(),
        ground.queue_url(),
        folder,
        {name: str(value) for name, value in capacity_settings(capacity).items()},
        ground=ground,
        capacity=capacity,
    )
    return RandomRun(run, plan, tell)
