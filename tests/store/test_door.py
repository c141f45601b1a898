"""The one door to PostgreSQL: bounded, clean, translated; a shared pool comes back as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from moving_parts import until
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from async_jobs.core.fairness import Flow
from async_jobs.errors import StoreUnavailable
from async_jobs.store.door import Door
from async_jobs.store.jobs import JobStore
from async_jobs.store.pace import Pace

from .factories import SUCCEEDED, JobFactory, new_job

Pool = AsyncConnectionPool[Any]


@pytest.fixture
def database(fresh_database: str) -> str:
    """These tests change the schema."""
    return fresh_database


@pytest_asyncio.fixture
async def single_pool(database: str) -> AsyncIterator[Pool]:
    """One connection as an application has it by default: not in autocommit."""
    async with AsyncConnectionPool(database, min_size=1, max_size=1, open=False) as pool:
        yield pool


async def backend_pid(pool: Pool) -> int:
    async with pool.connection() as conn:
        return int(conn.info.backend_pid)


def waiting_for_a_lock(db: psycopg.Connection[Any]) -> int:
    """How many sessions do; pg_stat_activity would say within a transaction what it said first."""
    told = db.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE NOT granted AND datname = current_database()"
    ).fetchone()
    assert told is not None
    return int(told[0])


async def test_a_pool_that_is_not_open_is_told_how_to_open_it(database: str) -> None:
    store = JobStore(AsyncConnectionPool(database, open=False))

    with pytest.raises(StoreUnavailable, match="async with pool:") as refusal:
        await store.get(new_job().id)

    assert "await pool.open(wait=True)" in str(refusal.value)


async def test_a_closed_pool_is_told_the_same(database: str) -> None:
    pool: Pool = AsyncConnectionPool(database, open=False)
    async with pool:
        pass

    with pytest.raises(StoreUnavailable, match="not open"):
        await JobStore(pool).get(new_job().id)


async def test_a_default_pool_serves_every_kind_of_move(single_pool: Pool) -> None:
    jobs = JobFactory(JobStore(single_pool))
    job = await jobs.finished(SUCCEEDED, dedupe_key="k")

    assert (await jobs.row(job)).finished_at is not None


async def test_a_default_pool_gets_its_connection_back_as_it_was(single_pool: Pool) -> None:
    store = JobStore(single_pool)
    await store.enqueue([new_job()])
    await store.enqueue([new_job(), new_job(dedupe_key="k")])
    with pytest.raises(psycopg.errors.CheckViolation):
        await store.enqueue([new_job(max_attempts=0)])

    async with single_pool.connection() as conn:
        assert not conn.autocommit
        assert conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


async def test_an_autocommit_pool_stays_in_autocommit(pool: Pool) -> None:
    await JobStore(pool).enqueue([new_job()])

    async with pool.connection() as conn:
        assert conn.autocommit


async def test_a_single_statement_commits_by_itself(
    single_pool: Pool, db: psycopg.Connection[Any]
) -> None:
    await JobStore(single_pool).enqueue([new_job()])

    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


@pytest.mark.own_session
@pytest.mark.parametrize("batch", [[new_job()], [new_job(), new_job(dedupe_key="k")]])
async def test_a_server_that_became_read_only_does_not_get_its_connection_back(
    single_pool: Pool, monkeypatch: pytest.MonkeyPatch, batch: list[Any]
) -> None:
    pace = Pace()
    monkeypatch.setattr("async_jobs.store.door.of_this_process", pace)
    store = JobStore(single_pool)
    old_pid = await backend_pid(single_pool)
    async with single_pool.connection() as conn:
        await conn.execute("SET SESSION default_transaction_read_only = on")
    assert pace.begin()
    pace.end(worked=True)
    with pytest.raises(StoreUnavailable, match="ReadOnlySqlTransaction"):
        await store.enqueue(batch)

    assert not pace.begin(), "the next connect should have been slowed down"
    await store.enqueue(batch)
    assert await backend_pid(single_pool) != old_pid


@pytest.mark.own_session
@pytest.mark.parametrize(
    ("sqlstate", "closes"),
    [
        ("53200", True),
        ("53100", True),
        ("08006", True),
        ("57P02", True),
        ("25006", True),
        ("25P03", True),
        ("57014", False),
        ("23505", False),
    ],
)
async def test_a_connection_of_no_more_use_is_closed_and_no_other_one(
    single_pool: Pool, sqlstate: str, closes: bool
) -> None:
    old_pid = await backend_pid(single_pool)
    statement = f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"

    with pytest.raises((StoreUnavailable, psycopg.Error)) as raised:
        await Door(single_pool, timeout_seconds=5.0).rows(statement.encode(), {}, tuple_row)

    assert (await backend_pid(single_pool) != old_pid) is closes
    assert not closes or raised.type is StoreUnavailable


@pytest.mark.own_session
async def test_a_terminated_connection_is_replaced(
    single_pool: Pool, db: psycopg.Connection[Any]
) -> None:
    store = JobStore(single_pool)
    db.execute("SELECT pg_terminate_backend(%s, 5000)", [await backend_pid(single_pool)])
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await store.enqueue([new_job()])

    await store.enqueue([new_job()])


async def test_a_statement_that_waits_too_long_is_given_up_and_taken_back(
    single_pool: Pool, db: psycopg.Connection[Any]
) -> None:
    await JobStore(single_pool).enqueue([new_job()])
    # Long enough for the statement to be at the server before its cancel is.
    store = JobStore(single_pool, timeout_seconds=1)
    with db.transaction():
        db.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="no answer within 1 s"):
            await store.enqueue([new_job()])
        waiting = waiting_for_a_lock(db)

    assert waiting == 0
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


async def test_after_a_time_out_the_pool_serves_again(
    single_pool: Pool, db: psycopg.Connection[Any]
) -> None:
    with db.transaction():
        db.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await JobStore(single_pool, timeout_seconds=0.1).enqueue([new_job()])

    await JobStore(single_pool).enqueue([new_job()])


async def test_a_pool_without_a_free_connection_is_waited_for_no_longer_than_the_time_out(
    single_pool: Pool,
) -> None:
    async with single_pool.connection():
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.05 s"):
            await JobStore(single_pool, timeout_seconds=0.05).enqueue([new_job()])


async def test_a_time_out_inside_a_turn_is_told_as_one(
    single_pool: Pool, db: psycopg.Connection[Any]
) -> None:
    store = JobStore(single_pool, timeout_seconds=0.1)

    async def lease() -> None:
        async with store.take_turn("mail") as turn:
            assert turn is not None
            await turn.lease_due(1, lease_seconds=5)

    with db.transaction():
        db.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await lease()


async def test_a_cancelled_caller_is_cancelled_and_leaves_the_pool_whole(
    single_pool: Pool, db: psycopg.Connection[Any]
) -> None:
    store = JobStore(single_pool)
    with db.transaction():
        db.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        caller = asyncio.create_task(store.enqueue([new_job()]))
        # A cancel that overtakes its statement finds nothing to end.
        await until(lambda: waiting_for_a_lock(db) == 1, what="the statement waits")
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    await store.enqueue([new_job()])
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


class SlowToTakeBack(AsyncConnectionPool[Any]):
    """As one is whose lock somebody else holds."""

    opened: asyncio.Event
    asked: int = 0

    async def putconn(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.asked += 1
        await self.opened.wait()
        await super().putconn(conn)


@pytest.mark.parametrize("within", ["a statement", "a transaction"])
async def test_a_caller_that_is_cancelled_while_its_connection_goes_back_loses_it_for_nobody(
    database: str, within: str
) -> None:
    async with SlowToTakeBack(database, min_size=1, max_size=1, open=False) as pool:
        pool.opened = asyncio.Event()
        store = JobStore(pool)
        call = store.ping() if within == "a statement" else store.check_schema()
        caller = asyncio.create_task(call)
        await until(lambda: pool.asked)

        caller.cancel()
        await asyncio.wait([caller])
        pool.opened.set()
        await until(lambda: pool.get_stats()["pool_available"])

        assert caller.cancelled()


async def test_an_unreachable_server_is_told_as_unavailable() -> None:
    pool: Pool = AsyncConnectionPool(
        "host=127.0.0.1 port=1 user=nobody connect_timeout=1",
        min_size=0,
        max_size=1,
        open=False,
        reconnect_timeout=0.2,
    )
    async with pool:
        with pytest.raises(StoreUnavailable):
            await JobStore(pool, timeout_seconds=0.3).get(new_job().id)


async def test_a_fault_of_ours_is_not_dressed_up_as_the_databases(
    pool: Pool, db: psycopg.Connection[Any]
) -> None:
    db.execute("ALTER TABLE jobs RENAME COLUMN worker TO workers")

    with pytest.raises(psycopg.errors.UndefinedColumn):
        await JobStore(pool).start_leased(["q"], slots=1, worker="w", lease_seconds=5)


@pytest.mark.own_session
async def test_no_statement_with_a_limit_is_ever_prepared(single_pool: Pool) -> None:
    """A prepared plan does not know its LIMIT, and may choose to sort the whole backlog."""
    store = JobStore(single_pool)
    for _ in range(8):
        await store.enqueue(
            [new_job(), new_job(dedupe_key="k")], quotas={"acme": 99}, use_cases=["mail"]
        )
        await store.promote_due(10)
        await store.rescue(10)
        await store.find(limit=10)
        await store.prune("mail", retention_seconds=5, most=10)
        await store.start_leased(["q"], slots=1, worker="w", lease_seconds=5)
        async with store.take_turn("mail") as turn:
            assert turn is not None
            await turn.count_in_flight()
            await turn.lease_due(1, lease_seconds=5)
            await turn.lease_chosen([], lease_seconds=5)
            await turn.find_candidates([(Flow("acme", "send"), False)], 3)
            await turn.find_flows(3)
            await turn.find_due(3, timely=True)
            await turn.sample_finished(3, since=None)

    async with single_pool.connection() as conn:
        cursor = await conn.execute("SELECT statement FROM pg_prepared_statements")
        prepared = [row[0] for row in await cursor.fetchall()]
    assert prepared
    assert [text for text in prepared if "LIMIT" in text and "LIMIT 1)" not in text] == []
