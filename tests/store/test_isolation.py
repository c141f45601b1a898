"""A database whose transactions are REPEATABLE READ unless told otherwise changes no promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg_pool import AsyncConnectionPool

from async_jobs.errors import QuotaExceeded
from async_jobs.models import JobStatus
from async_jobs.store.jobs import JobStore

from .factories import JobFactory, granted, new_job

pytestmark = pytest.mark.own_session

_MAKE_STRICT = """DO $$ BEGIN EXECUTE format(
    'ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''',
    current_database()); END $$"""
_WAITING = """SELECT FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@pytest_asyncio.fixture
async def strict_pool(fresh_database: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    with psycopg.connect(fresh_database, autocommit=True) as conn:
        conn.execute(_MAKE_STRICT)
    async with AsyncConnectionPool(fresh_database, min_size=1, max_size=3, open=False) as pool:
        yield pool


@pytest.fixture
def strict_store(strict_pool: AsyncConnectionPool[Any]) -> JobStore:
    return JobStore(strict_pool)


@pytest.fixture
def db(fresh_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(fresh_database, autocommit=True) as conn:
        yield conn


async def somebody_waits(db: psycopg.Connection[Any]) -> None:
    for _ in range(6_000):
        if db.execute(_WAITING).fetchall():
            return
        await asyncio.sleep(0.01)
    pytest.fail("Nobody waits for a lock.")


async def test_a_turn_counts_what_was_committed_after_it_began(
    strict_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    await strict_store.enqueue([new_job()])

    async with strict_store.take_turn("mail") as turn:
        assert turn is not None
        before = (await turn.count_in_flight()).total
        db.execute(
            "UPDATE jobs SET due = false, leased_at = now(), lease_expires_at = now() + '1 minute'"
        )
        after = (await turn.count_in_flight()).total

    assert (before, after) == (0, 1)


async def test_a_claim_never_counts_by_a_snapshot_from_before_its_turn(
    strict_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    """The function refuses to; the store calls it in a transaction that is READ COMMITTED."""
    await granted(strict_store, capacity=2)
    await strict_store.enqueue([new_job() for _ in range(5)])
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        db.execute("SELECT jobs_claim('{mail}', '{mail-queue}', 9, 'w', 30, NULL)")

    claims = [
        await strict_store.claims.claim(
            ["mail"], ["mail-queue"], slots=9, worker="w", lease_seconds=30.0
        )
        for _ in range(2)
    ]

    assert [claimed and len(claimed.jobs) for claimed in claims] == [2, 0]


async def test_who_waited_for_another_enqueue_of_the_tenant_counts_its_jobs(
    strict_store: JobStore, strict_pool: AsyncConnectionPool[Any], db: psycopg.Connection[Any]
) -> None:
    def enqueue(**more: Any) -> Any:
        return strict_store.enqueue([new_job()], quotas={"acme": 1}, use_cases=["mail"], **more)

    async with strict_pool.connection() as conn, conn.transaction():
        await enqueue(connection=conn)
        second = asyncio.create_task(enqueue())
        await somebody_waits(db)

    with pytest.raises(QuotaExceeded):
        await second


async def test_a_move_that_waited_for_a_row_that_changed_is_made_all_the_same(
    strict_store: JobStore, strict_pool: AsyncConnectionPool[Any], db: psycopg.Connection[Any]
) -> None:
    jobs = JobFactory(strict_store)
    job = await jobs.waiting()

    async with strict_pool.connection() as conn, conn.transaction():
        await conn.execute("UPDATE jobs SET priority = 7")
        cancel = asyncio.create_task(strict_store.cancel(job.id))
        await somebody_waits(db)

    assert await cancel is not None
    assert (await jobs.row(job)).status is JobStatus.CANCELLED


async def test_a_shared_pool_gets_its_connection_back_with_its_own_isolation(
    strict_store: JobStore, strict_pool: AsyncConnectionPool[Any]
) -> None:
    async with strict_store.take_turn("mail"):
        pass

    async with strict_pool.connection() as conn:
        shown = await (await conn.execute("SHOW transaction_isolation")).fetchone()
    assert shown == ("repeatable read",)
