"""A slot is filled when it frees, and an idle system is quick and costs next to nothing.

With the default settings, one scheduler and one worker. The assertions leave room for a busy
machine; the figures are what is promised.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from moving_parts import open_store

from async_jobs.models import NewJob
from bench import processes
from bench.measures import percentile

from .conftest import LONG, SECONDS, Ground, MakeTroupe, tell
from .troupe import Troupe

USE_CASE = "notifications"
CAPACITY = 10
JOB_SECONDS = 0.1
LEAST_RATE = 60.0
"""Promised: 80 jobs/s of 100 possible."""
MOST_LATENCY_MS = 250.0
"""Promised: 100 ms, for 99 of 100 jobs."""
MOST_STATEMENTS = 60.0
MOST_CORE = 0.02
"""Promised: 1 % of a core."""
GAP_SECONDS = 0.25
"""Longer than the system stays busy after a job."""

pytestmark = pytest.mark.slow


def troupe_of(make_troupe: MakeTroupe, transport: str, **settings: float) -> Troupe:
    return make_troupe(sqs=(USE_CASE,) if transport == "sqs" else (), **settings)


@pytest.mark.parametrize("transport", [pytest.param("sqs", marks=LONG), "postgres"])
async def test_ten_slots_of_100_ms_jobs_are_refilled(
    ground: Ground, make_troupe: MakeTroupe, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    troupe = troupe_of(make_troupe, transport)
    jobs = int(40 * SECONDS)
    await troupe.started([troupe.scheduler(), troupe.worker()])
    troupe.fill(USE_CASE, jobs, seconds=JOB_SECONDS)
    finished = "SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL"
    await troupe.until("all done", lambda: troupe.number(finished) == jobs, every_seconds=0.2)

    [span] = troupe.query(
        "SELECT extract(epoch FROM min(started_at)), extract(epoch FROM max(finished_at)) FROM jobs"
    )
    seconds = ground.record.between_stamps(*span)

    tell(
        capsys,
        f"{transport}: {jobs / float(span[1] - span[0]):.1f} jobs/s of 100 ms in {CAPACITY} slots",
    )
    assert seconds <= jobs / LEAST_RATE


@LONG
@pytest.mark.parametrize("transport", ["sqs", "postgres"])
async def test_a_job_enqueued_into_an_idle_system_starts_at_once(
    make_troupe: MakeTroupe, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    troupe = troupe_of(make_troupe, transport)
    await troupe.started([troupe.scheduler(), troupe.worker()])
    jobs = int(2.5 * SECONDS)
    async with open_store(troupe.dsn) as store:
        service = troupe.service(store)
        for _ in range(jobs):
            await asyncio.sleep(GAP_SECONDS)
            await service.enqueue_many(
                [NewJob(tenant_id="acme", use_case=USE_CASE, type="nap", payload={})]
            )
    sql = "SELECT extract(epoch FROM started_at - created_at) * 1000 FROM jobs"
    await troupe.until("all started", lambda: all(row[0] is not None for row in troupe.query(sql)))

    waits = [float(row[0]) for row in troupe.query(sql)]

    p50, p99 = (percentile(waits, share) for share in (0.5, 0.99))
    tell(capsys, f"{transport}: {jobs} jobs started after p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    assert p50 <= MOST_LATENCY_MS


@LONG
async def test_an_idle_system_costs_next_to_nothing(
    ground: Ground, make_troupe: MakeTroupe, capsys: pytest.CaptureFixture[str]
) -> None:
    troupe = troupe_of(make_troupe, "sqs")
    both = [troupe.scheduler(), troupe.worker()]
    await troupe.started(both)
    await asyncio.sleep(3.0)

    counted, cpu, began = statements(ground, troupe), cpu_seconds(troupe), time.monotonic()
    await asyncio.sleep(max(12.0, SECONDS))
    seconds = time.monotonic() - began
    per_minute = (statements(ground, troupe) - counted) / seconds * 60
    cores = [
        (after - before) / seconds for before, after in zip(cpu, cpu_seconds(troupe), strict=True)
    ]

    tell(
        capsys, f"idle: {per_minute:.0f} statements a minute, cores {[round(c, 4) for c in cores]}"
    )
    assert per_minute <= MOST_STATEMENTS
    assert max(cores) <= MOST_CORE


def statements(ground: Ground, troupe: Troupe) -> int:
    found = ground.servers.control.execute(
        "SELECT sum(calls) FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid "
        "WHERE datname = %s",
        [troupe.dsn.rpartition("dbname=")[2].split()[0]],
    ).fetchone()
    return int(found[0] or 0) if found else 0


def cpu_seconds(troupe: Troupe) -> list[float]:
    return [processes.cpu_seconds(one.popen.pid) for one in troupe.processes]
