"""An urgent job overtakes a backlog in SQS: little is sent ahead, and that costs no rate."""

from __future__ import annotations

import asyncio

import pytest
from moving_parts import open_store

from async_jobs.models import NewJob

from .conftest import LONG, SECONDS, Ground, MakeTroupe, tell
from .troupe import Troupe

USE_CASE = "notifications"
CAPACITY = 50
SLOTS = 10
BACKLOG = 50_000
_FINISHED = "SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL"
URGENT = 4
MOST_SECONDS = 2.0
LEAST_SHARE = 0.8
"""Promised: 0.95. The two runs come one after the other, on a machine that others use too."""

pytestmark = pytest.mark.slow


def deep_troupe(make_troupe: MakeTroupe, capacity: int, slots: int) -> Troupe:
    return make_troupe(
        sqs=(USE_CASE,),
        ASYNC_JOBS_NOTIFICATIONS_MAX_CONCURRENT=capacity,
        ASYNC_JOBS_WORKER_CONCURRENCY=slots,
    )


@pytest.mark.parametrize("job_seconds", [0.1, pytest.param(0.8, marks=LONG)])
async def test_an_urgent_job_starts_within_two_seconds_before_50_000_others(
    ground: Ground,
    make_troupe: MakeTroupe,
    capsys: pytest.CaptureFixture[str],
    job_seconds: float,
) -> None:
    troupe = deep_troupe(make_troupe, CAPACITY, SLOTS)
    troupe.fill(USE_CASE, BACKLOG, seconds=job_seconds)
    troupe.scheduler()
    troupe.worker()
    started = "SELECT count(*) FROM jobs WHERE started_at IS NOT NULL"
    await troupe.until("the workers are busy", lambda: troupe.number(started) > 2 * SLOTS)

    deepest = 0
    async with open_store(troupe.dsn) as store:
        service = troupe.service(store)
        for _ in range(URGENT):
            for _ in range(10):
                await asyncio.sleep(0.05)
                deepest = max(deepest, ahead(ground, troupe))
            urgent = NewJob(
                tenant_id="acme", use_case=USE_CASE, type="nap", payload={},
                delay_tolerance_seconds=5.0,
            )  # fmt: skip
            await service.enqueue_many([urgent])
    sql = (
        "SELECT extract(epoch FROM created_at), extract(epoch FROM started_at) FROM jobs "
        "WHERE delay_tolerance = interval '5 seconds'"
    )
    await troupe.until("all started", lambda: all(row[1] is not None for row in troupe.query(sql)))
    waits = [round(ground.record.between_stamps(*row), 2) for row in troupe.query(sql)]

    tell(
        capsys,
        f"{CAPACITY} slots, {SLOTS} at work on jobs of {job_seconds} s: urgent jobs started after "
        f"{waits} s, at most {deepest} sent ahead",
    )
    assert max(waits) <= MOST_SECONDS
    assert deepest <= 2 * CAPACITY


def ahead(ground: Ground, troupe: Troupe) -> int:
    """Messages in SQS and leases that nobody has started; most are counted twice."""
    asked = ground.servers.sqs(
        "GetQueueAttributes", QueueUrl=troupe.queue_urls[USE_CASE], AttributeNames=["All"]
    )
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    unstarted = "SELECT count(*) FROM jobs WHERE leased_at IS NOT NULL AND status = 'pending'"
    messages = sum(int(asked["Attributes"][name]) for name in names)
    return messages + int(troupe.number(unstarted))


@LONG
@pytest.mark.parametrize("job_seconds", [0.0, 0.1])
async def test_the_window_costs_no_rate(
    make_troupe: MakeTroupe, capsys: pytest.CaptureFixture[str], job_seconds: float
) -> None:
    rates = {"scheduler": 0.0, "windowless_scheduler": 0.0}
    for name in rates:
        troupe = deep_troupe(make_troupe, CAPACITY, CAPACITY)
        jobs = int((300 if job_seconds else 1_500) * SECONDS)
        await troupe.started([troupe.worker()])
        troupe.fill(USE_CASE, jobs, seconds=job_seconds)
        troupe.script(name) if name != "scheduler" else troupe.scheduler()
        await troupe.until(
            "all done",
            lambda troupe=troupe, jobs=jobs: troupe.number(_FINISHED) == jobs,  # type: ignore[misc] # defaults bind them
            every_seconds=0.2,
        )
        span = "SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM jobs"
        rates[name] = round(jobs / troupe.number(span))
        troupe.close()

    tell(capsys, f"jobs of {job_seconds} s, jobs/s: {rates}")
    assert rates["scheduler"] >= LEAST_SHARE * rates["windowless_scheduler"]
