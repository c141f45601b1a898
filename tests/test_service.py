"""What an operator does is told: every move of the service has its event."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from psycopg_pool import AsyncConnectionPool

from async_jobs import AsyncJobsConfig, JobService, JobStore, create_pool
from async_jobs.errors import MoveRefused
from async_jobs.models import Enqueued
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import Event, JobCancelled, JobEnqueued, JobRequeued


@pytest.fixture
async def pool(database: str) -> AsyncIterator[AsyncConnectionPool]:
    async with create_pool(AsyncJobsConfig(db_dsn=database), max_size=2) as pool:
        yield pool


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def service(database: str, pool: AsyncConnectionPool, told: list[Event]) -> JobService:
    return JobService(AsyncJobsConfig(db_dsn=database), JobStore(pool), bus=Bus(told.append))


async def enqueued(service: JobService) -> Enqueued:
    return await service.enqueue(
        tenant_id="acme", use_case="notifications", type="note", payload={"n": 1}
    )


async def test_an_enqueue_is_told(service: JobService, told: list[Event]) -> None:
    job = await enqueued(service)

    assert [(JobEnqueued, job.job_id)] == [(type(event), event.job_id) for event in told]


async def test_the_cancel_of_a_pending_job_and_its_requeue_are_told(
    service: JobService, told: list[Event]
) -> None:
    job = await enqueued(service)
    told.clear()

    await service.cancel(job.job_id)
    await service.requeue(job.job_id)

    assert [JobCancelled, JobRequeued] == [type(event) for event in told]


async def test_a_move_that_is_refused_is_not_told(service: JobService, told: list[Event]) -> None:
    job = await enqueued(service)
    told.clear()

    with pytest.raises(MoveRefused):
        await service.requeue(job.job_id)

    assert told == []
