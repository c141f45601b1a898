"""Jobs commit and roll back with the producer's data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from async_jobs.errors import DedupeConflict, QuotaExceeded
from async_jobs.models import AcceptedJob
from async_jobs.store.jobs import JobStore

from .factories import JobFactory, new_job

Connection = psycopg.AsyncConnection[Any]
QUOTA: dict[str, Any] = {"quotas": {"acme": 1}, "use_cases": ["mail"]}
BATCHES: dict[str, list[AcceptedJob]] = {
    "one": [new_job()],
    "one with a key": [new_job(dedupe_key="a")],
    "many": [new_job(), new_job(dedupe_key="b"), new_job(dedupe_key="c")],
}


@pytest_asyncio.fixture
async def caller(database: str) -> AsyncIterator[Connection]:
    """A producer's own connection with a table of its own."""
    async with await psycopg.AsyncConnection.connect(database) as conn:
        await conn.execute("CREATE TABLE orders (id int)")
        await conn.commit()
        yield conn
        await conn.rollback()
        await conn.execute("DROP TABLE orders")
        await conn.commit()


async def stored(store: JobStore, batch: list[AcceptedJob]) -> int:
    return sum([await store.get(job.id) is not None for job in batch])


@pytest.mark.parametrize("name", BATCHES)
async def test_jobs_are_seen_only_when_the_caller_commits(
    live_store: JobStore, caller: Connection, name: str
) -> None:
    batch = BATCHES[name]
    await caller.execute("INSERT INTO orders VALUES (1)")
    await live_store.enqueue(batch, connection=caller)
    before = await stored(live_store, batch)
    await caller.commit()

    assert (before, await stored(live_store, batch)) == (0, len(batch))


@pytest.mark.parametrize("name", BATCHES)
async def test_jobs_vanish_when_the_caller_rolls_back(
    live_store: JobStore, caller: Connection, name: str
) -> None:
    batch = BATCHES[name]
    await live_store.enqueue(batch, connection=caller)
    await caller.rollback()

    assert await stored(live_store, batch) == 0


async def test_a_refused_quota_leaves_the_callers_transaction_usable(
    live_store: JobStore, caller: Connection
) -> None:
    batch = [new_job(), new_job()]
    await caller.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(QuotaExceeded):
        await live_store.enqueue(batch, connection=caller, **QUOTA)
    await caller.execute("INSERT INTO orders VALUES (2)")
    await caller.commit()

    assert await orders(caller) == [1, 2]
    assert await stored(live_store, batch) == 0


async def test_a_dedupe_conflict_in_a_batch_leaves_nothing_of_the_batch(
    live_store: JobStore, live_jobs: JobFactory, caller: Connection
) -> None:
    await live_jobs.waiting(dedupe_key="k")
    batch = [new_job(), new_job(dedupe_key="k", type="other")]
    await caller.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(DedupeConflict):
        await live_store.enqueue(batch, connection=caller)
    await caller.commit()

    assert await orders(caller) == [1]
    assert await stored(live_store, batch) == 0


async def test_a_broken_rule_in_a_batch_leaves_the_callers_transaction_usable(
    live_store: JobStore, caller: Connection
) -> None:
    batch = [new_job(), new_job(dedupe_key="k", max_attempts=0)]
    await caller.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(psycopg.errors.CheckViolation):
        await live_store.enqueue(batch, connection=caller)
    await caller.execute("INSERT INTO orders VALUES (2)")
    await caller.commit()

    assert await orders(caller) == [1, 2]


async def orders(caller: Connection) -> list[int]:
    cursor = await caller.execute("SELECT id FROM orders ORDER BY id")
    return [row[0] for row in await cursor.fetchall()]


async def test_a_savepoint_of_the_caller_takes_its_jobs_along(
    live_store: JobStore, caller: Connection
) -> None:
    kept, dropped = new_job(), new_job()
    async with caller.transaction():
        await live_store.enqueue([kept], connection=caller)
        async with caller.transaction(force_rollback=True):
            await live_store.enqueue([dropped], connection=caller)

    assert await stored(live_store, [kept, dropped]) == 1


async def test_a_quota_counts_what_the_same_transaction_has_enqueued(
    live_store: JobStore, caller: Connection
) -> None:
    await live_store.enqueue([new_job()], connection=caller, **QUOTA)

    with pytest.raises(QuotaExceeded):
        await live_store.enqueue([new_job()], connection=caller, **QUOTA)


async def test_a_twin_inside_the_same_transaction_is_found(
    live_store: JobStore, caller: Connection
) -> None:
    first = new_job(dedupe_key="k")
    await live_store.enqueue([first], connection=caller)

    (second,) = await live_store.enqueue([new_job(dedupe_key="k")], connection=caller)

    assert (second.job_id, second.deduplicated) == (first.id, True)


async def test_a_connection_in_autocommit_commits_each_enqueue(
    live_store: JobStore, database: str
) -> None:
    batch = [new_job(), new_job(dedupe_key="k")]
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await live_store.enqueue(batch, connection=conn)

        assert await stored(live_store, batch) == 2


async def test_a_dict_row_connection_serves_as_well(live_store: JobStore, database: str) -> None:
    batch = [new_job(), new_job(dedupe_key="k")]
    async with await psycopg.AsyncConnection.connect(
        database, row_factory=psycopg.rows.dict_row
    ) as conn:
        await live_store.enqueue(batch, connection=conn, **{**QUOTA, "quotas": {"acme": 9}})

    assert await stored(live_store, batch) == 2


@pytest.mark.own_session
async def test_a_hint_is_heard_only_after_the_commit(
    live_store: JobStore, caller: Connection, db: psycopg.Connection[Any]
) -> None:
    db.execute("LISTEN async_jobs_due")
    await live_store.enqueue([new_job()], hints=["mail"], connection=caller)
    before = list(db.notifies(timeout=0))
    await caller.commit()
    after = [notice.payload for notice in db.notifies(timeout=10, stop_after=1)]

    assert (before, after) == ([], ["mail"])
