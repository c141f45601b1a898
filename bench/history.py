"""`python -m bench history`: enqueue and start beside finished jobs, against an empty table.

Two databases on one durable PostgreSQL: an empty one, and one with millions of finished jobs.
The library's own code enqueues a job, leases it and starts it, in turns on both, so that a
machine that slows down slows both. Times are from call to answer. At the end one batch is pruned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TypeVar

import psycopg
from rich.console import Console

from async_jobs.assembly import create_pool
from async_jobs.config import AsyncJobsConfig, UseCaseConfig
from async_jobs.core.outcome import Returned, decide
from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.service import JobService
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.transport.postgres import PostgresSender
from bench.servers import POSTGRES_OPTIONS
from bench.table import Table, show

MOST_RATIO = 1.5
WARM_UP = 50
MOST_PRUNED = 1_000
MOVES = ("enqueue", "lease", "start")
FILLED_AT_ONCE = 1_000_000

FILL = b"""
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due, status, attempts, started_at, finished_at)
SELECT uuidv7(), 'tenant' || mod(n, 100), 'mail', 'send', 'mail', '{"to": "ada"}',
    at, interval '1 minute', at + interval '1 minute', false,
    CASE WHEN mod(n, 100) = 0 THEN 'dead' ELSE 'succeeded' END, 1, at, at
FROM generate_series(1, %(jobs)s) AS n,
    LATERAL (SELECT clock_timestamp() - make_interval(secs => 604800)) AS finished (at)
"""

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Side:
    """One of the two databases, and what each move took there, in milliseconds."""

    service: JobService
    dispatcher: Dispatcher
    store: JobStore
    took: dict[str, list[float]] = field(default_factory=lambda: {move: [] for move in MOVES})

    async def job(self) -> None:
        """Enqueue, lease and start one job, and record that it succeeded."""
        await self._timed(
            "enqueue",
            self.service.enqueue(tenant_id="acme", use_case="mail", type="send", payload={}),
        )
        await self._timed("lease", self.dispatcher.dispatch())
        started = self.store.start_leased(["mail"], slots=10, worker="w", lease_seconds=60)
        jobs = await self._timed("start", started)
        await self.store.finish([(job, decide(job, Returned(None), random=0.5)) for job in jobs])

    async def _timed(self, move: str, work: Awaitable[Answer]) -> Answer:
        began = time.perf_counter()
        answer = await work
        self.took[move].append((time.perf_counter() - began) * 1_000)
        return answer


def run(finished: int, *, jobs: int) -> int:
    """Measure *jobs* jobs beside *finished* finished ones and print; 1 if a median is too slow."""
    console = Console()
    table = asyncio.run(_measured(finished, jobs, console))
    show(table, console)
    return int(any(row[-1] == "missed" for row in table.rows))


async def _measured(finished: int, jobs: int, console: Console) -> Table:
    with PostgresServer(options=POSTGRES_OPTIONS) as server:
        async with AsyncExitStack() as stack:
            empty = await stack.enter_async_context(_side(server, "empty", 0))
            console.print(f"filling with {finished:,} finished jobs ...")
            full = await stack.enter_async_context(_side(server, "history", finished))
            for number in range(WARM_UP + jobs):
                for side in (empty, full) if number % 2 else (full, empty):
                    await side.job()
            began = time.perf_counter()
            pruned = await full.store.prune("mail", retention_seconds=600_000, most=MOST_PRUNED)
            pruning = (time.perf_counter() - began) * 1_000
    console.print(f"pruned {pruned:,} jobs in {pruning:.0f} ms")
    return summary(empty.took, full.took, finished)


@asynccontextmanager
async def _side(server: PostgresServer, name: str, finished: int) -> AsyncIterator[Side]:
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    dsn = f"{server.dsn.rpartition('/')[0]}/{name}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(get_ddl().encode())
        for done in range(0, finished, FILLED_AT_ONCE):
            conn.execute(FILL, {"jobs": min(FILLED_AT_ONCE, finished - done)})
        conn.execute("VACUUM (ANALYZE) jobs")
        conn.execute("CHECKPOINT")
    use_case = UseCaseConfig(name="mail", max_concurrent=10_000, overload="accept")
    config = AsyncJobsConfig(db_dsn=dsn, use_cases={"mail": use_case})
    async with create_pool(config) as pool:
        store, bus = JobStore(pool, timeout_seconds=60.0), Bus()
        dispatcher = Dispatcher(
            store, PostgresSender(), use_case, quotas={}, dispatch_lease_seconds=60, bus=bus
        )
        yield Side(JobService(config, store, bus=bus), dispatcher, store)


def summary(empty: dict[str, list[float]], full: dict[str, list[float]], finished: int) -> Table:
    """Medians and 95th percentiles of both, the warm-up left out; `missed` above 1.5 times."""
    title = f"An empty table against {finished:,} finished jobs"
    rows = []
    for move in MOVES:
        ours, theirs = empty[move][WARM_UP:], full[move][WARM_UP:]
        ratio = median(theirs) / median(ours)
        rows.append(
            [
                move,
                f"{median(ours):.2f}",
                f"{median(theirs):.2f}",
                f"{_p95(ours):.2f}",
                f"{_p95(theirs):.2f}",
                f"{ratio:.2f}",
                "met" if ratio <= MOST_RATIO else "missed",
            ]
        )
    headings = ["move", "ms, empty", "ms, full", "p95, empty", "p95, full", "ratio", "≤ 1.5"]
    return Table(title, headings, rows)


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]
