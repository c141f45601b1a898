"""A dashboard around a job service, and visitors with different tokens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from jobs_api import opened_service

from async_jobs import JobService
from async_jobs.access import ApiToken
from async_jobs.dashboard.router import create_dashboard_router

TOKENS = [
    ApiToken.for_text("reads", name="reader", scopes=["read"]),
    ApiToken.for_text("operates", name="ada", scopes=["read", "operate"]),
    ApiToken.for_text("enqueues", name="shop", scopes=["enqueue"]),
    ApiToken.for_text("bound", name="bolt", scopes=["read", "operate"], tenant_id="bolt"),
]
JOB: dict[str, Any] = {"tenant_id": "acme", "use_case": "notifications", "type": "send"}
PAGES = ("", "jobs", "use-cases", "processes", "dead", "audit")


class Visitor:
    """A browser without a window: follows nothing, keeps its cookie, fills in forms."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str, **query: str) -> httpx2.Response:
        return await self.http.get(f"/dashboard/{path}", params=query)

    async def send(self, action: str, page: str = "use-cases", **fields: Any) -> httpx2.Response:
        """Send a form with the text that *page* shows, as a browser does."""
        shown = re.search(r'name="form" value="(\w+)"', (await self.get(page)).text)
        form = shown.group(1) if shown else "none"
        return await self.post(action, {"form": form, **fields})

    async def post(self, action: str, fields: dict[str, Any], **headers: str) -> httpx2.Response:
        sent = {"sec-fetch-site": "same-origin", **headers}
        return await self.http.post(f"/dashboard/{action}", data=fields, headers=sent)


@pytest.fixture
def database(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def service(database: str) -> AsyncIterator[JobService]:
    async with opened_service(database) as opened:
        yield opened


@pytest.fixture
def app(service: JobService) -> FastAPI:
    made = FastAPI()
    made.include_router(create_dashboard_router(lambda: service, tokens=TOKENS))
    return made


@pytest_asyncio.fixture
async def visitor(app: FastAPI) -> AsyncIterator[Visitor]:
    """Somebody who has not signed in."""
    async with _browser(app) as http:
        yield Visitor(http)


@pytest_asyncio.fixture
async def reader(app: FastAPI) -> AsyncIterator[Visitor]:
    async with _browser(app, "reads") as http:
        yield Visitor(http)


@pytest_asyncio.fixture
async def operator(app: FastAPI) -> AsyncIterator[Visitor]:
    async with _browser(app, "operates") as http:
        yield Visitor(http)


@pytest_asyncio.fixture
async def bound(app: FastAPI) -> AsyncIterator[Visitor]:
    """Whose token is bound to the tenant bolt."""
    async with _browser(app, "bound") as http:
        yield Visitor(http)


def _browser(app: FastAPI, token: str | None = None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app),
        base_url="http://localhost",
        cookies={} if token is None else {"async_jobs_session": token},
    )
