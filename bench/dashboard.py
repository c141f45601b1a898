"""`python -m bench dashboard`: each page of the dashboard beside millions of jobs.

A durable PostgreSQL is filled as a system looks that has run for a while: nearly everything has
succeeded, some jobs are dead, cancelled, waiting, scheduled or in flight. Each page is then asked
for in turns, in this process, and its time taken from request to answer; what PostgreSQL computed
meanwhile is divided by the pages. A page that is left open asks again by itself every few seconds:
its part of a core is the CPU time of one answer by those seconds.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median, quantiles

import httpx2
import psycopg
from fastapi import FastAPI
from rich.console import Console

from async_jobs.assembly import create_pool
from async_jobs.config import AsyncJobsConfig, UseCaseConfig
from async_jobs.dashboard.router import create_dashboard_router
from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.service import JobService
from async_jobs.store.jobs import JobStore
from bench import processes
from bench.servers import POSTGRES_OPTIONS
from bench.table import Table, show

MOST_MS = 200.0
MOST_OF_A_CORE = 0.01
WARM_UP = 3
FILLED_AT_ONCE = 1_000_000
USE_CASES = ("mail", "reports", "calls", "labels")

FILL = b"""
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due, status, attempts, started_at, first_started_at, finished_at, leased_at,
    lease_expires_at, last_error, dedupe_key)
SELECT uuidv7(), 'tenant' || mod(n, 100), use_case, 'send', use_case, '{"to": "ada"}',
    at, interval '1 minute', at + interval '1 minute', state = 'waiting',
    CASE WHEN state IN ('succeeded', 'dead', 'cancelled', 'running') THEN state ELSE 'pending' END,
    (state IN ('succeeded', 'dead', 'running'))::int,
    CASE WHEN state IN ('succeeded', 'dead', 'running') THEN at END,
    CASE WHEN state IN ('succeeded', 'dead', 'running') THEN at END,
    CASE WHEN state IN ('succeeded', 'dead', 'cancelled') THEN at END,
    CASE WHEN state = 'running' THEN at END,
    CASE WHEN state = 'running' THEN at + interval '1 day' END,
    CASE WHEN state = 'dead' THEN '{"type": "Boom", "message": "it went"}'::jsonb END,
    CASE WHEN mod(n, 10) = 0 THEN 'order ' || %(first)s + n END
FROM generate_series(1, %(jobs)s) AS n,
    LATERAL (SELECT
        (%(use_cases)s::text[])[1 + mod(n, 4)] AS use_case,
        CASE
            WHEN mod(n, 20000) = 7 THEN 'running' WHEN mod(n, 10000) = 11 THEN 'dead'
            WHEN mod(n, 1000) = 13 THEN 'cancelled' WHEN mod(n, 200) = 17 THEN 'scheduled'
            WHEN mod(n, 100) = 19 THEN 'waiting' ELSE 'succeeded' END AS state) AS made,
    LATERAL (SELECT clock_timestamp() + CASE WHEN state = 'scheduled' THEN interval '3 days'
        ELSE -make_interval(secs => 2 * mod(n, 3600)) END AS at) AS moment
"""
RECORD = b"""
INSERT INTO jobs_slo
SELECT use_case, '', measure, 60, date_bin('1 min', clock_timestamp(), '2000-01-01 00:00Z')
    - make_interval(mins => ago), 900, 9, 100.0, '{9,0,0,100,200,300,300}'
FROM unnest(%(use_cases)s::text[]) AS use_case,
    unnest(ARRAY['lease', 'start', 'end', 'lateness', 'run']) AS measure,
    generate_series(0, 359) AS ago
"""


@dataclass(slots=True)
class Page:
    """A page, how often it asks again by itself, and what its answers took."""

    name: str
    path: str
    every_seconds: float | None = None
    took_ms: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0


def pages(job_id: str) -> list[Page]:
    """Each page, and the lists that have most to look through."""
    return [
        Page("overview", "", 5.0),
        Page("jobs", "jobs"),
        Page("jobs of a tenant", "jobs?tenant_id=tenant7"),
        Page("jobs, running", "jobs?status=running"),
        Page("jobs, dead", "jobs?status=dead"),
        Page("jobs, late and failed", "jobs?late=yes&failed=yes&use_case=mail"),
        Page("jobs, an error of no job", "jobs?error=Never"),
        Page("jobs, a dedupe key of no job", "jobs?dedupe_key=never"),
        Page("jobs, an empty range", "jobs?enqueued_until=2020-01-01T00:00"),
        Page("a job", f"jobs/{job_id}", 5.0),
        Page("use cases", "use-cases", 10.0),
        Page("processes", "processes", 10.0),
        Page("dead", "dead"),
        Page("count before a move", "bulk?move=requeue"),
        Page("audit", "audit"),
    ]


def run(rows: int, *, rounds: int) -> int:
    """Measure *rounds* answers of each page and print; 1 if one takes or costs too much."""
    console = Console()
    table = asyncio.run(_measured(rows, rounds, console))
    show(table, console)
    return int(any(row[-1] == "missed" for row in table.rows))


async def _measured(rows: int, rounds: int, console: Console) -> Table:
    with PostgresServer(options=POSTGRES_OPTIONS) as server:
        console.print(f"filling with {rows:,} jobs ...")
        job_id = _fill(server.dsn, rows)
        names = {name: UseCaseConfig(name=name, max_concurrent=1_000) for name in USE_CASES}
        config = AsyncJobsConfig(db_dsn=server.dsn, use_cases=names)
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(create_pool(config))
            service = JobService(config, JobStore(pool, timeout_seconds=60.0))
            app = FastAPI()
            router = create_dashboard_router(lambda: service, require_auth_token=False)
            app.include_router(router)
            http = await stack.enter_async_context(
                httpx2.AsyncClient(
                    transport=httpx2.ASGITransport(app=app), base_url="http://localhost", timeout=60
                )
            )
            asked = pages(job_id)
            pid = server.pid
            for number in range(WARM_UP + rounds):
                for page in asked:
                    await _ask(http, page, pid, counts=number >= WARM_UP)
    return summary(asked, rows)


async def _ask(http: httpx2.AsyncClient, page: Page, pid: int, *, counts: bool) -> None:
    cpu, began = processes.cpu_seconds(pid), time.perf_counter()
    answer = await http.get(f"/dashboard/{page.path}")
    took = (time.perf_counter() - began) * 1_000
    answer.raise_for_status()
    if counts:
        page.took_ms.append(took)
        page.cpu_seconds += processes.cpu_seconds(pid) - cpu


def _fill(dsn: str, rows: int) -> str:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(get_ddl().encode())
        for done in range(0, rows, FILLED_AT_ONCE):
            jobs = min(FILLED_AT_ONCE, rows - done)
            values = {"jobs": jobs, "first": done, "use_cases": list(USE_CASES)}
            conn.execute(FILL, values)
        conn.execute(RECORD, {"use_cases": list(USE_CASES)})
        conn.execute("VACUUM (ANALYZE) jobs")
        conn.execute("CHECKPOINT")
        row = conn.execute("SELECT id FROM jobs WHERE due ORDER BY id LIMIT 1").fetchone()
    assert row is not None
    return str(row[0])


def summary(asked: list[Page], rows: int) -> Table:
    """Times and PostgreSQL's CPU time; `missed` above 200 ms or, left open, 1 % of a core."""
    made = []
    for page in asked:
        p99 = quantiles(page.took_ms, n=100, method="inclusive")[-1]
        cpu_ms = 1_000 * page.cpu_seconds / len(page.took_ms)
        core = cpu_ms / 1_000 / page.every_seconds if page.every_seconds else 0.0
        is_met = p99 <= MOST_MS and core <= MOST_OF_A_CORE
        made.append(
            [
                page.name,
                f"{median(page.took_ms):.1f}",
                f"{p99:.1f}",
                f"{cpu_ms:.1f}",
                f"{100 * core:.2f} %" if page.every_seconds else "–",
                "met" if is_met else "missed",
            ]
        )
    headings = ["page", "p50 ms", "p99 ms", "PostgreSQL, CPU ms", "left open", "≤ 200 ms, ≤ 1 %"]
    return Table(f"The dashboard beside {rows:,} jobs", headings, made)
