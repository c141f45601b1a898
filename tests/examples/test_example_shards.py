"""The example with several databases: where tenants are, and one list of all jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from async_jobs import JobService, JobStore, create_pool
from async_jobs.ddl import get_ddl
from async_jobs.models import NewJob
from examples.shards import Shards, configurations, place_of

NAMES = ["one", "two", "three"]
TENANTS = [f"tenant{number}" for number in range(300)]


@pytest_asyncio.fixture
async def services(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, JobService]]:
    """Two databases, each with its pool and service."""
    monkeypatch.setenv("ASYNC_JOBS_MAIL_MAX_CONCURRENT", "10")
    other = f"{conninfo_to_dict(database)['dbname']}_two"
    name = sql.Identifier(str(other))
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            two = make_conninfo(database, dbname=str(other))
            with psycopg.connect(two) as conn:
                conn.execute(get_ddl())
            async with AsyncExitStack() as stack:
                yield {
                    shard: JobService(
                        config, JobStore(await stack.enter_async_context(create_pool(config)))
                    )
                    for shard, config in configurations({"one": database, "two": two}).items()
                }
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.mark.slow
async def test_jobs_lie_where_their_tenant_is(services: dict[str, JobService]) -> None:
    shards = Shards(services)
    for tenant in TENANTS[:12]:
        await shards.enqueue(_job(tenant))

    found = {
        tenant: name
        for name, service in services.items()
        for tenant in [job.tenant_id for job in (await service.list()).jobs]
    }

    assert found == {tenant: place_of(tenant, list(services)) for tenant in TENANTS[:12]}
    assert set(found.values()) == set(services)


@pytest.mark.slow
async def test_pages_of_all_databases_are_one_list(services: dict[str, JobService]) -> None:
    shards = Shards(services)
    ids = [(await shards.enqueue(_job(tenant))).job_id for tenant in TENANTS[:10]]

    seen = []
    page = await shards.list(limit=4)
    seen += page.jobs
    while page.next_cursor:
        page = await shards.list(limit=4, cursor=page.next_cursor)
        seen += page.jobs

    assert [job.id for job in seen] == sorted(ids, reverse=True)


def test_a_further_database_moves_only_its_own_share_of_the_tenants() -> None:
    before = {tenant: place_of(tenant, NAMES[:2]) for tenant in TENANTS}
    after = {tenant: place_of(tenant, NAMES) for tenant in TENANTS}

    moved = {tenant for tenant in TENANTS if before[tenant] != after[tenant]}

    assert {after[tenant] for tenant in moved} == {"three"}
    assert 60 < len(moved) < 140


def test_tenants_spread_over_all_databases() -> None:
    spread = Counter(place_of(tenant, NAMES) for tenant in TENANTS)

    assert min(spread[name] for name in NAMES) > 60


def test_a_tenant_may_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.shards.PLACES", {"tenant1": "two"})

    assert place_of("tenant1", NAMES) == "two"


def _job(tenant: str) -> NewJob:
    return NewJob(tenant_id=tenant, use_case="mail", type="noop", payload={})
