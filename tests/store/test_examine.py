"""What a check-up reads from a real server: each trouble is made, and seen."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from moving_parts import POOLED, open_store
from psycopg.conninfo import make_conninfo

from async_jobs.core.checkup import USED_BY_EVERY_PASS, Examined
from async_jobs.store.jobs import JobStore

MANY = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at, due
    )
    SELECT gen_random_uuid(), 'acme', 'mail', 'send', 'mail', '{}', now(), '0', now(), true
    FROM generate_series(1, 1000)
"""


@pytest.fixture
def database(fresh_database: str) -> str:
    """One of its own: these tests spoil it."""
    return fresh_database


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[JobStore]:
    async with open_store(database, size=1) as opened:
        yield opened


async def examine(store: JobStore) -> Examined:
    return await store.steering.examine()


async def test_a_new_database_is_well(store: JobStore) -> None:
    found = await examine(store)

    assert found.invalid_indexes == []
    assert found.vacuum_share == 0.02
    assert found.autovacuums_table
    assert found.clock_difference_seconds < 2.0
    assert found.prepared_transactions == 0
    assert found.oldest_transaction_seconds < 60.0
    assert found.idle_slots == []


async def test_an_index_that_is_not_valid_is_seen(store: JobStore, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("CREATE INDEX lean ON jobs_slo (late)")
        conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'lean'::regclass")

    assert (await examine(store)).invalid_indexes == ["lean"]


@pytest.mark.own_session
async def test_indexes_that_nobody_uses_are_told_once_rows_were_changed(
    store: JobStore, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
        conn.execute(MANY)
        conn.execute("UPDATE jobs SET priority = 1")
        conn.execute("SELECT pg_stat_force_next_flush()")

    found = await examine(store)

    assert found.updates == 1_000.0
    assert set(USED_BY_EVERY_PASS) <= set(found.unused_indexes)


@pytest.mark.own_session
async def test_the_oldest_transaction_and_who_holds_it(store: JobStore, database: str) -> None:
    with psycopg.connect(make_conninfo(database, application_name="forgotten")) as conn:
        conn.execute("SELECT 1")
        found = await examine(store)
        pid = conn.info.backend_pid

    assert found.oldest_transaction is not None
    assert found.oldest_transaction["pid"] == pid
    assert found.oldest_transaction["name"] == "forgotten"
    assert found.oldest_transaction["state"] == "idle in transaction"
    assert 0.0 < found.oldest_transaction_seconds < 60.0


async def test_settings_of_the_table_that_an_operator_changed(
    store: JobStore, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)")
        conn.execute("ALTER TABLE jobs RESET (autovacuum_vacuum_scale_factor)")

    found = await examine(store)

    assert not found.autovacuums_table
    assert found.vacuum_share == 0.2


async def test_a_pooler_is_told_from_the_server_itself(store: JobStore) -> None:
    assert (await examine(store)).is_pooled is POOLED
