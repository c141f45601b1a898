"""`python -m bench backlog`: what a pass reads, with few jobs waiting and with ten million.

Two databases differ in nothing but the backlog. Both hold 1,000 tenants with 100 jobs
each, future jobs and finished ones; in the small one another tenant has 10,000 jobs
waiting, in the large one ten million. The scheduler's own code makes each move on both,
and pg_stat_statements tells how many buffers (pages of 8 KiB, hit or read) it took.
Counts of buffers do not depend on the machine's speed or load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool
from rich.console import Console
from rich.table import Table

from async_jobs.config import UseCaseConfig
from async_jobs.core.window import Window
from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.models import AcceptedJob, Leased, new_job_id
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.transport.ports import SendReport

MIDNIGHT = datetime(2030, 1, 1, tzinfo=UTC)
BATCH = 100
TENANTS = 1_000
SMALL = 10_000
OPTIONS = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "synchronous_commit": "off",
    "maintenance_work_mem": "1GB",
    "shared_preload_libraries": "pg_stat_statements",
    "autovacuum": "off",
}
FILL = b"""
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due, leased_at, lease_expires_at, lease_seq, status, attempts, started_at,
    finished_at)
SELECT uuidv7(), tenant, 'mail', 'send', 'mail', '{"to": "ada"}',
    at, interval '1 hour', at + interval '1 hour', state = 'waiting',
    CASE WHEN state = 'lost' THEN at END, CASE WHEN state = 'lost' THEN at END, 1,
    CASE state WHEN 'lost' THEN 'running' WHEN 'done' THEN 'succeeded' ELSE 'pending' END,
    CASE WHEN state IN ('lost', 'done') THEN 1 ELSE 0 END,
    CASE WHEN state IN ('lost', 'done') THEN at END,
    CASE WHEN state = 'done' THEN at + interval '1 second' END
FROM unnest(%(states)s::text[], %(tenants)s::text[], %(counts)s::int[], %(offsets)s::float8[])
        AS part (state, tenant, count, from_seconds),
    generate_series(1, count) AS n,
    LATERAL (SELECT timestamptz '2030-01-01 00:00Z'
        + make_interval(secs => from_seconds + mod(n::bigint * 7919, 3000))) AS moment (at)
"""
COUNTED = """
SELECT coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint, coalesce(sum(calls), 0)::bigint
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND query NOT LIKE '%%pg_stat_statements%%'
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one move took: buffers, statements and milliseconds, and how many rows it moved."""

    rows: int
    buffers: int
    statements: int
    milliseconds: float

    @property
    def per_row(self) -> float:
        return self.buffers / max(1, self.rows)


class SettableClock:
    """What time the store believes it is."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


class Catcher:
    """A queue that takes everything."""

    def __init__(self) -> None:
        self.caught: list[Leased] = []

    async def send(self, leased: Sequence[Leased], *, pack: int) -> SendReport:
        self.caught += leased
        return SendReport([], "")

    async def depth(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Bench:
    """A filled database, and the real parts that work on it."""

    pool: AsyncConnectionPool[Any]
    store: JobStore
    clock: SettableClock

    def dispatcher(self) -> tuple[Dispatcher, Catcher]:
        catcher = Catcher()
        capacity = 100_000
        dispatcher = Dispatcher(
            self.store,
            catcher,
            UseCaseConfig(name="mail", max_concurrent=capacity),
            quotas={},
            dispatch_lease_seconds=1e6,
            window=Window(BATCH, size=BATCH),
            bus=Bus(),
        )
        return dispatcher, catcher

    async def measure(self, move: Callable[[], Awaitable[int]]) -> Measured:
        async with self.pool.connection() as conn:
            await conn.execute("SELECT pg_stat_statements_reset()")
        began = time.perf_counter()
        rows = await move()
        milliseconds = (time.perf_counter() - began) * 1_000
        async with self.pool.connection() as conn:
            found = await (await conn.execute(COUNTED)).fetchone()
        assert found is not None
        return Measured(rows, found[0], found[1], milliseconds)

    async def moves(self) -> dict[str, Measured]:
        """Every bounded move of the core path."""
        found = {}
        dispatcher, catcher = self.dispatcher()

        async def lease() -> int:
            before = len(catcher.caught)
            await dispatcher.dispatch()
            return len(catcher.caught) - before

        async def rescue() -> int:
            return len(await self.store.rescue(BATCH))

        async def promote() -> int:
            return (await self.store.promote_due(BATCH)).total()

        async def survey() -> int:
            await self.store.survey(["mail"])
            return 1

        async def enqueue() -> int:
            await self.store.enqueue(
                [_job("big")], quotas={"big": 10_000_000_000}, use_cases=["mail"]
            )
            return 1

        async def bounded() -> int:
            await self.store.enqueue([_job("t1")], quotas={"t1": 101}, use_cases=["mail"])
            return 1

        self.clock.at = MIDNIGHT
        for name, move in (("survey", survey), ("enqueue, quota of 101", bounded)):
            found[name] = await self.measure(move)
        await lease()
        await self._forget(catcher)
        found["lease, healthy"] = await self.measure(lease)
        await self._forget(catcher)
        self.clock.at = MIDNIGHT + timedelta(seconds=3_600 + 1_500)
        await lease()
        await self._forget(catcher)
        found["lease, under pressure"] = await self.measure(lease)
        # After the leases: rescued jobs lie side by side; beside few others they are leased next.
        found["rescue"] = await self.measure(rescue)
        self.clock.at = MIDNIGHT + timedelta(days=3)
        found["promote"] = await self.measure(promote)
        return found

    async def _forget(self, catcher: Catcher) -> None:
        """Let what was leased have finished, so that every pass finds the same slots."""
        async with self.pool.connection() as conn:
            await conn.execute(
                "UPDATE jobs SET leased_at = NULL, lease_expires_at = NULL, status = 'succeeded', "
                "attempts = 1, finished_at = clock_timestamp() WHERE id = ANY (%s)",
                [[job.job_id for job in catcher.caught]],
            )
        catcher.caught.clear()


def _job(tenant: str) -> AcceptedJob:
    return AcceptedJob(
        id=new_job_id(),
        tenant_id=tenant,
        use_case="mail",
        type="send",
        queue="mail",
        payload_json="{}",
        run_at=None,
        delay_tolerance_seconds=3_600.0,
        max_attempts=3,
        backoff_json=None,
        dedupe_key=None,
        priority=0,
    )


def fill(conn: psycopg.Connection[Any], *, big: int, future: int, done: int) -> None:
    """The table of one size, with statistics as autovacuum would leave them."""
    indexes = [
        row[0]
        for row in conn.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'jobs' AND indexname LIKE 'idx%%'"
        )
    ]
    for index in indexes:
        conn.execute(f"DROP INDEX {index.split(' ON ')[0].split()[-1]}".encode())
    parts = [("waiting", "big", big, 0.0), ("scheduled", "future", future, 86_400.0)]
    parts += [("done", "done", done, -86_400.0), ("lost", "lost", 5 * BATCH, -86_400.0)]
    parts += [("waiting", f"t{n}", 100, float(n % 100)) for n in range(TENANTS)]
    for columns in (parts[:1], parts[1:3], parts[3:]):
        states, tenants, counts, offsets = (list(column) for column in zip(*columns, strict=True))
        conn.execute(
            FILL,
            {"states": states, "tenants": tenants, "counts": counts, "offsets": offsets},
        )
    for index in indexes:
        conn.execute(index.encode())
    conn.execute("VACUUM (ANALYZE) jobs")


@asynccontextmanager
async def filled(server: PostgresServer, name: str, **sizes: int) -> AsyncIterator[Bench]:
    """A database of the given sizes."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    dsn = f"{server.dsn.rpartition('/')[0]}/{name}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        conn.execute(get_ddl().encode())
        fill(conn, **sizes)
    clock = SettableClock(MIDNIGHT)
    kwargs = {"autocommit": True}
    async with AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False, kwargs=kwargs) as pool:
        yield Bench(pool, JobStore(pool, timeout_seconds=600.0, clock=clock), clock)


async def compare(big: int, console: Console) -> dict[str, tuple[Measured, Measured]]:
    """Every move on the small and on the large table."""
    found: list[dict[str, Measured]] = []
    with PostgresServer(options=OPTIONS) as server:
        for name, waiting in (("small", SMALL), ("large", big)):
            console.print(f"{name}: filling with {waiting:,} waiting jobs of one tenant ...")
            others = min(big // 10, 1_000_000)
            async with filled(server, name, big=waiting, future=others, done=others) as bench:
                console.print(f"{name}: measuring")
                found.append(await bench.moves())
    small, large = found
    return {move: (small[move], large[move]) for move in small}


def show(moves: dict[str, tuple[Measured, Measured]], big: int) -> Table:
    table = Table(title=f"Buffers, {SMALL:,} against {big:,} waiting jobs of one tenant")
    for column in ("move", "rows", "small", "large", "ratio", "per row", "statements", "ms"):
        table.add_column(column, justify="left" if column == "move" else "right")
    for move, (small, large) in moves.items():
        table.add_row(
            move,
            str(large.rows),
            f"{small.buffers:,}",
            f"{large.buffers:,}",
            f"{large.buffers / max(1, small.buffers):.2f}",
            f"{large.per_row:.1f}",
            str(large.statements),
            f"{large.milliseconds:.1f}",
        )
    return table


def run(big: int) -> None:
    """Measure and print."""
    console = Console()
    console.print(show(asyncio.run(compare(big, console)), big))
