"""What an enqueue costs, counted so that no clock matters: functions entered, statements sent."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import Any

import psycopg
import pytest

from async_jobs import AsyncJobsConfig, JobService, JobStore, NewJob, create_pool
from async_jobs.schemas import EnqueueManyRequest

JOBS = 500
MOST_CALLS_IN_A_BATCH = 12
"""Python functions entered for a job of a batch."""
MOST_CALLS_IN_A_PARSED_BATCH = 15
"""The same where each job has texts of its own."""
MOST_CALLS_ALONE = 360
"""The same for a job by itself, the driver's and the event loop's included (316 when
written)."""


@pytest.fixture
async def service(database: str) -> AsyncIterator[JobService]:
    config = AsyncJobsConfig(db_dsn=database)
    async with create_pool(config, max_size=1) as pool:
        service = JobService(config, JobStore(pool))
        # What is read once in a while is read now, and the statement is prepared.
        for _ in range(10):
            await service.enqueue(new_job(0))
        yield service


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that is sent while the test runs."""
    sent: list[str] = []
    execute = psycopg.AsyncCursor.execute

    async def noted(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
        sent.append(str(query))
        return await execute(cursor, query, *given, **named)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", noted)
    return sent


def new_job(number: int) -> NewJob:
    return NewJob(
        tenant_id="acme", use_case="notifications", type="note", payload={"number": number}
    )


async def calls_of(work: Callable[[], Awaitable[object]]) -> int:
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        await work()
    finally:
        sys.setprofile(None)
    return calls


async def test_a_job_of_a_batch_costs_few_function_calls(service: JobService) -> None:
    jobs = [new_job(number) for number in range(JOBS)]
    await service.enqueue_many(jobs)

    calls = await calls_of(lambda: service.enqueue_many(jobs))

    assert calls / JOBS <= MOST_CALLS_IN_A_BATCH


async def test_a_job_by_itself_costs_few_function_calls(service: JobService) -> None:
    calls = min([await calls_of(lambda: service.enqueue(new_job(1))) for _ in range(5)])

    assert calls <= MOST_CALLS_ALONE


async def test_a_batch_and_a_job_by_itself_are_one_statement_each(
    service: JobService, statements: list[str]
) -> None:
    await service.enqueue_many([new_job(number) for number in range(JOBS)])
    await service.enqueue(new_job(1))

    assert [text.count("INSERT INTO jobs") for text in statements if "INSERT" in text] == [1, 1]
    # Beside them what is read once a second at most: demand, pace, what operators have set.
    assert len(statements) <= 5


async def test_a_batch_that_was_parsed_costs_few_function_calls(service: JobService) -> None:
    """Its texts are equal, but not the same ones, as they come from a request."""
    fields = {"tenant_id": "acme", "use_case": "notifications", "type": "note", "payload": {}}
    text = json.dumps({"jobs": [fields] * JOBS})
    request = EnqueueManyRequest.model_validate(json.loads(text))
    jobs = [job.to_new_job() for job in request.jobs]
    assert jobs[0].tenant_id is not jobs[1].tenant_id
    await service.enqueue_many(jobs)

    calls = await calls_of(lambda: service.enqueue_many(jobs))

    assert calls / JOBS <= MOST_CALLS_IN_A_PARSED_BATCH
