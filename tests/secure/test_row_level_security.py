"""The recipe of `deploy/row-level-security.sql`: one tenant's jobs in each transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from async_jobs import AsyncJobsConfig, JobService, JobStore
from async_jobs.errors import JobIdTaken
from async_jobs.models import JobStatus, new_job_id

from .conftest import PASSWORD, ROOT

TENANTS = ("acme", "bolt")
ALTERNATIONS = 1_000


@pytest.fixture
def tenant_dsn(owner_dsn: str) -> str:
    """The connection string of an application with the tenants' role."""
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        for _ in range(2):
            owner.execute((ROOT / "deploy" / "row-level-security.sql").read_bytes())
        if not owner.execute("SELECT FROM pg_roles WHERE rolname = 'shop'").fetchall():
            owner.execute(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'".encode())
        owner.execute("GRANT async_jobs_tenant TO shop")
    return make_conninfo(owner_dsn, user="shop", password=PASSWORD)


@pytest_asyncio.fixture
async def pool(tenant_dsn: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    """One connection for both tenants."""
    async with AsyncConnectionPool(tenant_dsn, min_size=1, max_size=1, open=False) as pool:
        yield pool


@pytest.fixture
def service(tenant_dsn: str, pool: AsyncConnectionPool[Any]) -> JobService:
    return JobService(AsyncJobsConfig(db_dsn=tenant_dsn), JobStore(pool, timeout_seconds=0.2))


@asynccontextmanager
async def acting_for(pool: AsyncConnectionPool[Any], tenant: str) -> AsyncIterator[Any]:
    """A transaction on the one connection, as the recipe says."""
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant])
        yield conn


async def tenants_seen(conn: Any) -> set[str]:
    cursor = await conn.execute("SELECT DISTINCT tenant_id FROM jobs")
    return {tenant for (tenant,) in await cursor.fetchall()}


def job_of(tenant: str, **more: Any) -> dict[str, Any]:
    job = {"tenant_id": tenant, "use_case": "notifications", "type": "note", "payload": {}}
    return job | more


@pytest.mark.slow
async def test_two_tenants_take_turns_on_one_connection_and_never_see_each_other(
    pool: AsyncConnectionPool[Any], service: JobService
) -> None:
    for tenant in TENANTS:
        async with acting_for(pool, tenant) as conn:
            await service.enqueue(**job_of(tenant), connection=conn)

    leaks = 0
    for turn in range(ALTERNATIONS):
        tenant = TENANTS[turn % 2]
        try:
            async with acting_for(pool, tenant) as conn:
                leaks += await tenants_seen(conn) != {tenant}
                if turn % 3 == 0:
                    raise LookupError
        except LookupError:
            pass  # what is rolled back leaves nothing behind either
        if turn % 10 == 0:
            async with pool.connection() as conn:
                leaks += await tenants_seen(conn) != set()

    assert leaks == 0


async def test_a_tenant_cannot_enqueue_for_another(
    pool: AsyncConnectionPool[Any], service: JobService
) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        async with acting_for(pool, "acme") as conn:
            await service.enqueue(**job_of("bolt"), connection=conn)


async def test_another_tenants_id_is_taken_and_nothing_is_told_of_it(
    pool: AsyncConnectionPool[Any], service: JobService
) -> None:
    job_id = new_job_id()
    async with acting_for(pool, "acme") as conn:
        await service.enqueue(**job_of("acme", job_id=job_id), connection=conn)

    with pytest.raises(JobIdTaken):
        async with acting_for(pool, "bolt") as conn:
            await service.enqueue(**job_of("bolt", job_id=job_id), connection=conn)


async def test_a_transaction_that_names_no_tenant_stores_nothing(
    pool: AsyncConnectionPool[Any], service: JobService
) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        async with pool.connection() as conn:
            await service.enqueue(**job_of("acme"), connection=conn)


async def test_scheduler_and_worker_go_on_for_every_tenant(
    pool: AsyncConnectionPool[Any],
    service: JobService,
    make_stage: Callable[..., Any],
    dsn_of: Callable[[str], str],
) -> None:
    stage = make_stage()
    producer = JobService(stage.config, JobStore(pool, timeout_seconds=0.2))
    job_ids = []
    for tenant in TENANTS:
        async with acting_for(pool, tenant) as conn:
            job = job_of(tenant, use_case="flow")
            job_ids.append((await producer.enqueue(**job, connection=conn)).job_id)

    stage.scheduler(ASYNC_JOBS_DB_DSN=dsn_of("scheduler"))
    stage.worker(ASYNC_JOBS_DB_DSN=dsn_of("worker"))
    await stage.all_succeeded(job_ids)

    assert stage.stop_all() == [0, 0]
    assert stage.query("SELECT count(*) FROM jobs WHERE status = %s", JobStatus.SUCCEEDED) == [(2,)]
