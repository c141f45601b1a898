"""The client against the real API on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from jobs_api import JOB, TOKEN, app_around, caller, opened_service

from async_jobs import AsyncJobsHttpClient, JobService, NewJob
from async_jobs.errors import ApiError
from async_jobs.models import JobStatus


@pytest_asyncio.fixture
async def service(database: str) -> AsyncIterator[JobService]:
    async with opened_service(database) as service:
        yield service


@pytest_asyncio.fixture
async def client(service: JobService) -> AsyncIterator[AsyncJobsHttpClient]:
    async with (
        caller(app_around(service)) as http,
        AsyncJobsHttpClient("http://localhost", TOKEN, http_client=http) as client,
    ):
        del http.headers["Authorization"]
        yield client


async def test_an_enqueued_job_can_be_read_back(client: AsyncJobsHttpClient) -> None:
    job_id = await client.enqueue(
        **JOB, delay_tolerance_seconds=0.25, priority=7, timeout_seconds=1.5
    )
    job = await client.get(job_id)

    assert job.id == job_id
    assert job.payload == JOB["payload"]
    assert (job.delay_tolerance_seconds, job.priority, job.timeout_seconds) == (0.25, 7, 1.5)
    assert job.status is JobStatus.PENDING


async def test_the_id_prints_as_the_plain_id(client: AsyncJobsHttpClient) -> None:
    job_id = await client.enqueue(**JOB)

    assert f"{job_id}" == str((await client.get(str(job_id))).id)


async def test_a_key_gives_the_same_id_twice(client: AsyncJobsHttpClient) -> None:
    first = await client.enqueue(**JOB, dedupe_key="k")
    second = await client.enqueue(**JOB, dedupe_key="k")

    assert first == second


async def test_a_batch_is_stored_whole(client: AsyncJobsHttpClient) -> None:
    ids = await client.enqueue_many([NewJob(**JOB), NewJob(**JOB)])
    page = await client.list()

    assert {job.id for job in page.jobs} == set(ids)


async def test_the_pages_of_a_list_follow_one_another(client: AsyncJobsHttpClient) -> None:
    ids = [await client.enqueue(**JOB) for _ in range(3)]

    first = await client.list(limit=2, tenant_id="tenant1", status="pending")
    second = await client.list(limit=2, cursor=first.next_cursor)

    assert [job.id for job in (*first.jobs, *second.jobs)] == ids[::-1]
    assert second.next_cursor is None


async def test_a_cancelled_job_has_finished_and_can_be_requeued(
    client: AsyncJobsHttpClient,
) -> None:
    job_id = await client.enqueue(**JOB)

    cancelled = await client.cancel(job_id)
    again = await client.cancel(job_id)
    waited = await client.wait(job_id, timeout_seconds=0)
    requeued = await client.requeue(job_id)

    assert cancelled.status is JobStatus.CANCELLED
    assert again == cancelled
    assert waited.is_finished
    assert requeued.status is JobStatus.PENDING


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"use_case": "unknown"}, 422, "unknown_use_case"),
        ({"payload": {"a": "x" * 262_144}}, 413, "too_large"),
    ],
)
async def test_what_only_the_server_knows_comes_back_as_its_problem(
    client: AsyncJobsHttpClient, changes: dict[str, Any], status: int, code: str
) -> None:
    with pytest.raises(ApiError) as refused:
        await client.enqueue(**JOB | changes)

    assert (refused.value.status, refused.value.code) == (status, code)


async def test_a_client_with_another_token_is_told_so(service: JobService) -> None:
    async with caller(app_around(service)) as http:
        client = AsyncJobsHttpClient("http://localhost", "another", http_client=http)
        with pytest.raises(ApiError) as refused:
            await client.list()

    assert (refused.value.status, refused.value.code) == (401, "unauthorized")


@pytest.mark.parametrize("token", ["schlüssel", TOKEN])
async def test_any_token_that_the_server_expects_can_be_sent(
    service: JobService, token: str
) -> None:
    async with caller(app_around(service, expected_auth_token=token)) as http:
        client = AsyncJobsHttpClient("http://localhost", token, http_client=http)
        page = await client.list()

    assert page.jobs == []
