"""`GET /metrics/autoscaling`: the figure, its bounds, and who may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from jobs_api import JOB, TOKEN, caller, opened_service

from async_jobs import JobService, create_metrics_router
from async_jobs.access import ApiToken, Scope

READER = "a-token-of-the-scope-read"
PRODUCER = "a-token-of-the-scope-enqueue"
BOUND = "a-token-of-one-tenant"
TOKENS = (
    ApiToken.for_text(READER, name="reader", scopes=[Scope.READ]),
    ApiToken.for_text(PRODUCER, name="producer", scopes=[Scope.ENQUEUE]),
    ApiToken.for_text(BOUND, name="bound", scopes=[Scope.READ], tenant_id="acme"),
)
PATH = "/metrics/autoscaling"


@pytest_asyncio.fixture
async def service(emptied_database: str) -> AsyncIterator[JobService]:
    async with opened_service(emptied_database) as service:
        yield service


@pytest_asyncio.fixture
async def http(service: JobService) -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    app.include_router(
        create_metrics_router(lambda: service, expected_auth_token=TOKEN, tokens=TOKENS)
    )
    async with caller(app) as http:
        yield http


async def test_it_tells_the_workers_that_waiting_jobs_need(
    service: JobService, http: httpx2.AsyncClient
) -> None:
    for _ in range(120):
        await service.enqueue(**JOB, delay_tolerance_seconds=30)

    answer = (await http.get(PATH, params={"slots_per_worker": 2})).json()
    needs = {each["use_case"]: each for each in answer["use_cases"]}

    assert answer["workers"] == needs["notifications"]["workers"] > 0
    assert needs["notifications"]["wanted_slots"] >= 2
    assert needs["message_labeling"]["workers"] == 0
    assert (answer["slots_per_worker"], answer["within_seconds"]) == (2, 600.0)


async def test_a_paused_use_case_needs_no_workers(
    service: JobService, http: httpx2.AsyncClient
) -> None:
    await service.enqueue(**JOB)
    before = (await http.get(PATH)).json()["workers"]
    await service.pause("notifications", actor="test")

    assert (before, (await http.get(PATH)).json()["workers"]) == (1, 0)


async def test_one_use_case_can_be_asked_for(http: httpx2.AsyncClient) -> None:
    answer = (await http.get(PATH, params={"use_case": "notifications"})).json()

    assert [each["use_case"] for each in answer["use_cases"]] == ["notifications"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("slots_per_worker=0", "slots_per_worker"),
        ("slots_per_worker=many", "slots_per_worker"),
        ("within_seconds=nan", "within_seconds"),
        ("within_seconds=inf", "within_seconds"),
        ("lead_seconds=-1", "lead_seconds"),
        ("lead_second=1", "lead_second"),
        ("use_case=a&use_case=b", "use_case"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    http: httpx2.AsyncClient, query: str, field: str
) -> None:
    answer = await http.get(f"{PATH}?{query}")

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", field]


async def test_an_unknown_use_case_is_refused(http: httpx2.AsyncClient) -> None:
    assert (await http.get(PATH, params={"use_case": "nobody"})).status_code == 422


@pytest.mark.parametrize(
    ("token", "status"), [("wrong", 401), (READER, 200), (PRODUCER, 403), (BOUND, 403)]
)
async def test_it_needs_the_scope_read_of_a_token_of_no_tenant(
    http: httpx2.AsyncClient, token: str, status: int
) -> None:
    answer = await http.get(PATH, headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == status
