"""What an operator does is told: every move of the service has its event."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from moving_parts import PREPARED
from psycopg_pool import AsyncConnectionPool

from async_jobs import AsyncJobsConfig, JobService, JobStore, create_pool
from async_jobs.errors import JobNotFound, MoveRefused
from async_jobs.models import Enqueued, JobStatus, Ticket
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import (
    Event,
    JobCancelled,
    JobEnqueued,
    JobRequeued,
    OperatorActed,
)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[AsyncConnectionPool]:
    async with create_pool(
        AsyncJobsConfig(db_dsn=database, db_prepared_statements=PREPARED), max_size=2
    ) as pool:
        yield pool


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def store(pool: AsyncConnectionPool) -> JobStore:
    return JobStore(pool)


@pytest.fixture
def service(database: str, store: JobStore, told: list[Event]) -> JobService:
    return JobService(AsyncJobsConfig(db_dsn=database), store, bus=Bus(told.append))


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


async def test_a_second_cancel_answers_the_same_and_is_neither_told_nor_audited(
    service: JobService, told: list[Event]
) -> None:
    job = await enqueued(service)
    first = await service.cancel(job.job_id, actor="ada")
    told.clear()

    second = await service.cancel(job.job_id, actor="bob", tenant_id="acme")

    assert second == first
    assert told == []
    assert [line.actor for line in await service.audit()] == ["ada"]
    with pytest.raises(JobNotFound):
        await service.cancel(job.job_id, tenant_id="bolt")


async def test_a_second_cancel_of_a_running_job_is_neither_told_nor_audited(
    service: JobService, told: list[Event], store: JobStore
) -> None:
    job = await enqueued(service)
    async with store.take_turn("notifications") as turn:
        assert turn is not None
        await turn.lease_due(1, lease_seconds=30)
    await store.start([Ticket(job.job_id, 1)], worker="w", lease_seconds=30)
    first = await service.cancel(job.job_id, actor="ada")

    second = await service.cancel(job.job_id, actor="bob")

    assert (first.status, second.status) == (JobStatus.RUNNING, JobStatus.RUNNING)
    assert second.cancel_requested_at == first.cancel_requested_at
    assert [event.actor for event in told if isinstance(event, OperatorActed)] == ["ada"]
    assert [line.actor for line in await service.audit()] == ["ada"]


async def test_a_move_that_is_refused_is_not_told(service: JobService, told: list[Event]) -> None:
    job = await enqueued(service)
    told.clear()

    with pytest.raises(MoveRefused):
        await service.requeue(job.job_id)

    assert told == []
