"""Many large or slow requests at once fill neither the memory nor the time of the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from jobs_api import AS_JSON

from async_jobs.api import route


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


async def test_few_large_requests_are_read_at_a_time(api: httpx2.AsyncClient) -> None:
    reading: set[int] = set()
    most = 0

    async def large(number: int) -> AsyncIterator[bytes]:
        nonlocal most
        yield b" " * (route.SMALL_BYTES + 1)
        reading.add(number)
        most = max(most, len(reading))
        for _ in range(8):
            await asyncio.sleep(0)
            yield b" " * route.SMALL_BYTES
        reading.discard(number)

    async with asyncio.TaskGroup() as group:
        sent = [
            group.create_task(api.post("/jobs/enqueue", content=large(number), headers=AS_JSON))
            for number in range(3 * route.LARGE_READS)
        ]

    assert {one.result().status_code for one in sent} == {422}
    assert most == route.LARGE_READS


async def test_a_request_that_never_ends_is_given_up(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "READ_TIMEOUT_SECONDS", 0.01)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await api.post("/jobs/enqueue", content=stuck(), headers=AS_JSON)

    assert answer.status_code == 408
    assert answer.json()["error"] == "request_timeout"
