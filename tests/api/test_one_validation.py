"""A job is judged by one set of rules, whichever way it comes: HTTP, Python or the client."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from test_router_bad_inputs import REFUSED

from async_jobs import AsyncJobsHttpClient, JobService
from async_jobs.errors import InvalidJob
from async_jobs.models import JobFields

NEEDED = {"tenant_id", "use_case", "type", "payload"}
KNOWN_TO_THE_SERVER_ONLY = ("unknown_use_case", "unknown_queue", "too_large")


def fields_of(content: bytes) -> dict[str, Any] | None:
    """What Python code would pass for this request; None if it is no job in Python at all."""
    try:
        given = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or not given.keys() >= NEEDED:
        return None
    return given if given.keys() <= JobFields.__annotations__.keys() else None


ROWS = {
    name: (found, code)
    for name, (content, _, code) in REFUSED.items()
    if code != "invalid_json" and (found := fields_of(content))
}


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


def test_most_rows_can_be_written_in_python() -> None:
    assert len(ROWS) > 60


@pytest.mark.parametrize(("fields", "code"), ROWS.values(), ids=ROWS.keys())
async def test_what_the_api_refuses_the_service_refuses(
    service: JobService, fields: dict[str, Any], code: str | None
) -> None:
    with pytest.raises(InvalidJob) as refused:
        await service.enqueue(**fields)

    assert refused.value.code
    assert "Zq7" not in str(refused.value)
    assert not (await service.list()).jobs


@pytest.mark.parametrize(("fields", "code"), ROWS.values(), ids=ROWS.keys())
async def test_what_the_api_refuses_the_client_never_sends(
    fields: dict[str, Any], code: str | None
) -> None:
    if code in KNOWN_TO_THE_SERVER_ONLY:
        return

    def answer(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError("sent")

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        client = AsyncJobsHttpClient("https://jobs.example.com", http_client=http)
        with pytest.raises(InvalidJob) as refused:
            await client.enqueue(**fields)

    assert "Zq7" not in str(refused.value)
