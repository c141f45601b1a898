"""The real router on a real database, for the tests of the API and of its client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from fastapi import FastAPI
from moving_parts import PREPARED

from async_jobs import AsyncJobsConfig, JobService, JobStore, create_jobs_router, create_pool

TOKEN = "the-token-of-the-tests"
AS_JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JOB: dict[str, Any] = {
    "tenant_id": "tenant1",
    "use_case": "notifications",
    "type": "send_email",
    "payload": {"to": "user@example.com"},
}


@asynccontextmanager
async def opened_service(database: str, **settings: Any) -> AsyncIterator[JobService]:
    """A job service on an open pool."""
    settings = {"db_prepared_statements": PREPARED} | settings
    config = AsyncJobsConfig(db_dsn=database, **settings)
    async with create_pool(config) as pool:
        yield JobService(config, JobStore(pool))


def app_around(service: JobService, **options: Any) -> FastAPI:
    """An application with nothing but the router."""
    app = FastAPI()
    settings = {"expected_auth_token": TOKEN} | options
    app.include_router(create_jobs_router(job_service_factory=lambda: service, **settings))
    return app


def caller(app: FastAPI, **options: Any) -> httpx2.AsyncClient:
    """Somebody who knows the token and calls the application without a network."""
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app),
        base_url="http://localhost",
        headers=BEARER,
        **options,
    )


def job(**changes: Any) -> bytes:
    """The good job with some fields changed, as its sender would write it."""
    return json.dumps(JOB | changes).encode()


def raw(payload: str) -> bytes:
    """The good job with *payload* as it stands."""
    return json.dumps(JOB).replace(json.dumps(JOB["payload"]), payload).encode()


def nested(levels: int) -> bytes:
    return raw('{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}")
