"""`python -m bench replay`: the real scheduler and its SQL, on a virtual clock.

A workload's jobs are stored, leased, started and finished by the code that production
runs, in a real PostgreSQL; only time is made: it jumps from one event (a job becomes due,
an attempt ends) to the next, so that an hour takes as long as its statements. Beside each
figure stands what `async-jobs simulate` says: they must agree within one point, or the
simulation does not describe the scheduler.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg_pool import AsyncConnectionPool
from rich.console import Console
from rich.table import Table

from async_jobs.config import TenantQuota, UseCaseConfig
from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import Outcome
from async_jobs.core.window import Window
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.models import AcceptedJob, JobStatus, Leased, StartedJob, new_job_id
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.simulation.arrivals import Arrival, Workload
from async_jobs.simulation.engine import simulate
from async_jobs.simulation.policies import Setup
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.transport.ports import SendReport

BEGINS = datetime(2030, 1, 1, tzinfo=UTC)
OPTIONS = {"fsync": "off", "synchronous_commit": "off", "shared_buffers": "512MB"}
USE_CASE = UseCaseConfig(name="replay").name
FAR_SECONDS = 1e8
WORKLOADS = ("steady", "noisy", "hog", "cheat", "surge", "overload", "mixed", "poison")
SUCCEEDED = Outcome(move=Move.SUCCEED, status=JobStatus.SUCCEEDED, result_json="null")
BURIED = Outcome(move=Move.BURY, status=JobStatus.DEAD, error_json='{"type": "Poison"}')


class VirtualClock:
    """The time of a replay: what the store and the dispatcher are told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return BEGINS + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass(slots=True)
class Shares:
    """First attempts and how many of them started late: of all, quiet, top priority."""

    jobs: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)

    def add(self, arrival: Arrival, workload: Workload, *, late: bool, top: int) -> None:
        kinds = ["all"]
        kinds += [] if arrival.tenant_id in workload.noisy else ["quiet"]
        kinds += ["top"] if arrival.priority == top else []
        self.jobs.update(kinds)
        if late:
            self.late.update(kinds)

    def percent(self, kind: str) -> float:
        return 100 * self.late[kind] / max(1, self.jobs[kind])


class Queue:
    """Takes what the dispatcher sends; the replay's workers start it."""

    def __init__(self) -> None:
        self.sent: list[Leased] = []

    async def send(self, leased: Sequence[Leased], *, pack: int) -> SendReport:
        self.sent += leased
        return SendReport([], "")

    async def depth(self) -> int:
        return 0


class Replay:
    """One workload on one empty table."""

    def __init__(
        self,
        store: JobStore,
        clock: VirtualClock,
        workload: Workload,
        *,
        capacity: int,
        cap: int = 0,
    ) -> None:
        self.shares = Shares()
        self.most_running = 0
        self.passes = 0
        self._store = store
        self._clock = clock
        self._workload = workload
        self._capacity = capacity
        self._queue = Queue()
        self._arrivals = workload.arrivals
        self._top = max(arrival.priority for arrival in workload.arrivals)
        self._arrival_of: dict[UUID, Arrival] = {}
        self._running: list[tuple[float, int, StartedJob]] = []
        self._retries: list[float] = []
        self._waiting = 0
        self._next = 0
        self._count = 0
        self._dispatcher = Dispatcher(
            store,
            self._queue,
            UseCaseConfig(name=USE_CASE, max_concurrent=capacity),
            quotas=(
                {tenant: TenantQuota(max_concurrent_jobs=cap) for tenant in workload.noisy}
                if cap
                else {}
            ),
            dispatch_lease_seconds=FAR_SECONDS,
            window=Window(capacity, size=capacity),
            monotonic=clock.monotonic,
            bus=Bus(),
        )

    async def run(self) -> None:
        """Every job to its end."""
        while (at := self._next_at()) < math.inf:
            self._clock.seconds = at
            await self._finish_due()
            await self._add_due()
            await self._refill()

    def _next_at(self) -> float:
        due = [self._arrivals[self._next].run_at] if self._next < len(self._arrivals) else []
        due += [self._running[0][0]] if self._running else []
        due += [self._retries[0]] if self._retries else []
        return min(due, default=math.inf)

    async def _finish_due(self) -> None:
        ended: list[tuple[StartedJob, Outcome]] = []
        while self._running and self._running[0][0] <= self._clock.seconds:
            job = heapq.heappop(self._running)[2]
            ended.append((job, self._outcome(job)))
        if ended:
            await self._store.finish(ended)

    def _outcome(self, job: StartedJob) -> Outcome:
        arrival = self._arrival_of[job.id]
        if job.attempts > arrival.failing_attempts:
            return SUCCEEDED
        if job.attempts >= arrival.max_attempts:
            return BURIED
        backoff = self._workload.backoff_seconds
        heapq.heappush(self._retries, self._clock.seconds + backoff)
        return Outcome(
            move=Move.RETRY,
            status=JobStatus.PENDING,
            delay_seconds=backoff,
            error_json='{"type": "Poison"}',
        )

    async def _add_due(self) -> None:
        retried = 0
        while self._retries and self._retries[0] <= self._clock.seconds:
            heapq.heappop(self._retries)
            retried += 1
        if retried:
            await self._store.promote_due(retried)
        due: list[AcceptedJob] = []
        while (
            self._next < len(self._arrivals)
            and self._arrivals[self._next].run_at <= self._clock.seconds
        ):
            arrival = self._arrivals[self._next]
            due.append(_accepted(arrival))
            self._arrival_of[due[-1].id] = arrival
            self._next += 1
        if due:
            await self._store.enqueue(due)
        self._waiting += retried + len(due)

    async def _refill(self) -> None:
        while self._waiting and len(self._running) < self._capacity:
            self.passes += 1
            await self._dispatcher.dispatch()
            if not self._queue.sent:
                break
            await self._start()

    async def _start(self) -> None:
        started = await self._store.start_leased(
            [USE_CASE], slots=len(self._queue.sent), worker="replay", lease_seconds=FAR_SECONDS
        )
        self._queue.sent.clear()
        self._waiting -= len(started)
        for job in started:
            self._count += 1
            arrival = self._arrival_of[job.id]
            ends_at = self._clock.seconds + arrival.run_seconds
            heapq.heappush(self._running, (ends_at, self._count, job))
            if job.attempts == 1:
                late = job.lateness_seconds > 1e-6  # a microsecond is the table's precision
                self.shares.add(arrival, self._workload, late=late, top=self._top)
        self.most_running = max(self.most_running, len(self._running))


def _accepted(arrival: Arrival) -> AcceptedJob:
    return AcceptedJob(
        id=new_job_id(),
        tenant_id=arrival.tenant_id,
        use_case=USE_CASE,
        type=arrival.type,
        queue=USE_CASE,
        payload_json="{}",
        run_at=BEGINS + timedelta(seconds=arrival.run_at),
        delay_tolerance_seconds=arrival.delay_tolerance_seconds,
        max_attempts=arrival.max_attempts,
        backoff_json=None,
        dedupe_key=None,
        priority=arrival.priority,
    )


async def replayed(dsn: str, workload: Workload, *, capacity: int, cap: int = 0) -> Replay:
    """Run *workload* on the (empty) database; *cap* bounds what a noisy tenant may hold."""
    clock = VirtualClock()
    kwargs = {"autocommit": True}
    async with AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False, kwargs=kwargs) as pool:
        store = JobStore(pool, timeout_seconds=600.0, clock=clock)
        await store.init_schema()
        await _emptied(pool)
        replay = Replay(store, clock, workload, capacity=capacity, cap=cap)
        await replay.run()
    return replay


async def _emptied(pool: AsyncConnectionPool[Any]) -> None:
    async with pool.connection() as conn:
        await conn.execute("TRUNCATE jobs")


def run(workloads: Sequence[Workload], *, capacity: int | None = None, cap: int = 0) -> bool:
    """Replay and simulate each, print both; whether they agree within one point."""
    console = Console()
    table = Table(title="Late first attempts, %: the real scheduler / the simulation")
    for column in (
        "workload",
        "jobs",
        "slots",
        "all",
        "quiet",
        "top priority",
        "seconds",
        "passes",
    ):
        table.add_column(column, justify="left" if column == "workload" else "right")
    agree = True
    with PostgresServer(options=OPTIONS) as server:
        for workload in workloads:
            slots = capacity or workload.capacity
            limits = dict.fromkeys(workload.noisy, cap) if cap else {}
            began = time.monotonic()
            replay = asyncio.run(replayed(server.dsn, workload, capacity=slots, cap=cap))
            took = time.monotonic() - began
            setup = Setup(
                capacity=slots, max_concurrent=limits, backoff_seconds=workload.backoff_seconds
            )
            told = simulate(workload, setup)
            pairs = [
                (replay.shares.percent("all"), 100 * told.late_share),
                (replay.shares.percent("quiet"), 100 * (told.quiet_late_share or 0.0)),
                (replay.shares.percent("top"), 100 * (told.top_priority_late_share or 0.0)),
            ]
            if not workload.noisy:
                pairs[1] = (0.0, 0.0)
            agree &= all(abs(real - simulated) <= 1 for real, simulated in pairs)
            table.add_row(
                workload.name,
                f"{len(workload.arrivals):,}",
                str(slots),
                *[f"{real:.2f} / {simulated:.2f}" for real, simulated in pairs],
                f"{took:.0f}",
                f"{replay.passes:,}",
            )
            console.print(f"{workload.name}: {took:.0f} s, at most {replay.most_running} running")
    console.print(table)
    return agree
