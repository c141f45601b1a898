"""The example's web service: an order and its mail are stored together or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from moving_parts import PREPARED
from psycopg.rows import scalar_row

from async_jobs import AsyncJobsConfig
from async_jobs.config import TenantQuota
from examples.app import create_app

ORDER = {
    "tenant_id": "bakery",
    "customer": "Ada",
    "email": "ada@mail.example",
    "item": "rye bread",
}


@pytest_asyncio.fixture
async def shop(database: str) -> AsyncIterator[AsyncClient]:
    """A client of the running web service, in which a tenant may have one unfinished job."""
    config = AsyncJobsConfig(
        db_dsn=database,
        db_prepared_statements=PREPARED,
        enqueue_auth_token="secret-token",
        per_tenant_quotas={"*": TenantQuota(max_pending_jobs=1)},
    )
    app = create_app(config)
    transport = ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://shop.example") as client,
    ):
        yield client


def stored(database: str, table: str) -> int:
    with psycopg.connect(database, row_factory=scalar_row) as conn:
        count = conn.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert isinstance(count, int)
    return count


async def test_an_order_brings_the_job_that_mails_its_confirmation(
    shop: AsyncClient, database: str
) -> None:
    placed = (await shop.post("/orders", json=ORDER)).json()
    token = {"Authorization": "Bearer secret-token"}
    job = (await shop.get(f"/jobs/{placed['job_id']}", headers=token)).json()

    assert job["type"] == "send_notification"
    assert job["payload"]["values"]["order"] == str(placed["order_id"])
    assert (stored(database, "orders"), stored(database, "jobs")) == (1, 1)


async def test_an_order_whose_job_is_refused_is_not_stored_either(
    shop: AsyncClient, database: str
) -> None:
    await shop.post("/orders", json=ORDER)
    refused = await shop.post("/orders", json=ORDER)

    assert refused.status_code == 422
    assert "unfinished jobs" in refused.json()["detail"]
    assert (stored(database, "orders"), stored(database, "jobs")) == (1, 1)


async def test_the_jobs_api_beside_it_asks_for_the_token(shop: AsyncClient) -> None:
    assert (await shop.get("/jobs")).status_code == 401
