"""The schema as text: idempotent, versioned, safe from many processes at once."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from async_jobs.ddl import get_ddl
from async_jobs.errors import SchemaOutdated
from async_jobs.store.jobs import JobStore
from async_jobs.store.migrate import latest_version, migrations

APPLY = """
import sys, psycopg
from async_jobs.ddl import get_ddl
with psycopg.connect(sys.argv[1]) as conn:
    conn.execute("SELECT pg_advisory_xact_lock_shared(77)")
    conn.execute(get_ddl())
"""
DESCRIBED_COLUMNS = {
    *("id", "tenant_id", "use_case", "type", "queue", "status", "payload", "run_at"),
    *("delay_tolerance", "deadline_at", "priority", "attempts", "max_attempts", "backoff_policy"),
    *("lease_expires_at", "last_error", "dedupe_key", "enqueue_failed", "created_at"),
    "updated_at",
}
DESCRIBED_INDEXES = {
    "idx_jobs_pending_deadline",
    "idx_jobs_tenant_status",
    "idx_jobs_use_case_status",
    "idx_jobs_dedupe_key",
}


@pytest.fixture
def database(fresh_database: str) -> str:
    """These tests change the schema."""
    return fresh_database


def shape(conn: psycopg.Connection[Any]) -> list[Any]:
    """Columns, constraints and indexes."""
    return [
        *conn.execute(
            "SELECT table_name, column_name, data_type, is_nullable, column_default "
            "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        ),
        *conn.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = 'jobs'::regclass ORDER BY 1"
        ),
        *conn.execute(
            "SELECT indexname, indexdef FROM pg_indexes " "WHERE tablename = 'jobs' ORDER BY 1"
        ),
    ]


@pytest.mark.slow
def test_ten_processes_may_apply_the_schema_at_once(db: psycopg.Connection[Any]) -> None:
    expected = shape(db)
    db.execute("DROP TABLE jobs CASCADE")
    with db.transaction():
        # Held until all ten stand before the door: then they run at the same moment.
        db.execute("SELECT pg_advisory_xact_lock(77)")
        processes = [
            subprocess.Popen([sys.executable, "-c", APPLY, dsn_of(db)], stderr=subprocess.PIPE)
            for _ in range(10)
        ]
        wait_until_ten_wait(db, processes)
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]

    assert [process.returncode for process in processes] == [0] * 10, errors
    assert shape(db) == expected


def dsn_of(conn: psycopg.Connection[Any]) -> str:
    return make_conninfo(conn.info.dsn, password=conn.info.password or None)


def wait_until_ten_wait(
    conn: psycopg.Connection[Any], processes: list[subprocess.Popen[bytes]]
) -> None:
    while all(process.poll() is None for process in processes):
        waiting = conn.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 "
            "AND NOT granted AND database = (SELECT oid FROM pg_database "
            "WHERE datname = current_database())"
        ).fetchone()
        if waiting == (len(processes),):
            return


def test_applying_the_schema_twice_changes_nothing(db: psycopg.Connection[Any]) -> None:
    expected = shape(db)
    db.execute(get_ddl())

    assert shape(db) == expected


def test_the_described_columns_and_indexes_are_there(db: psycopg.Connection[Any]) -> None:
    columns = {
        row[1]
        for row in db.execute(
            "SELECT 1, attname FROM pg_attribute "
            "WHERE attrelid = 'jobs'::regclass AND attnum > 0"
        )
    }
    indexes = {
        row[0] for row in db.execute("SELECT indexname FROM pg_indexes " "WHERE tablename = 'jobs'")
    }

    assert columns >= DESCRIBED_COLUMNS
    assert indexes >= DESCRIBED_INDEXES


def test_every_job_lives_in_one_table_beside_small_control_tables(
    db: psycopg.Connection[Any],
) -> None:
    tables = db.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'v', 'm', 'p') ORDER BY 1"
    ).fetchall()

    assert [name for (name,) in tables] == [
        "jobs",
        "jobs_audit",
        "jobs_breakers",
        "jobs_capacities",
        "jobs_endings",
        "jobs_grants",
        "jobs_overrides",
        "jobs_processes",
        "jobs_rates",
        "jobs_slo",
    ]


def test_the_ddl_is_one_statement_that_fails_as_a_whole(db: psycopg.Connection[Any]) -> None:
    db.execute("DROP TABLE jobs CASCADE")
    # A view in the place of the table makes the script fail after its first statements.
    db.execute("CREATE VIEW jobs AS SELECT 1 AS id")
    with pytest.raises(psycopg.Error):
        db.execute(get_ddl())

    assert db.execute(
        "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'idx_jobs%'"
    ).fetchone() == (0,)


def test_migrations_are_numbered_without_gaps_and_say_that_they_run_online() -> None:
    assert [version for version, _ in migrations()] == list(range(1, latest_version() + 1))
    assert all(text.startswith("-- online\n") for _, text in migrations())


async def test_a_database_without_the_table_is_outdated(
    live_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    db.execute("DROP TABLE jobs CASCADE")

    with pytest.raises(SchemaOutdated, match=r"version 0, .* needs \d+.*--init-db"):
        await live_store.check_schema()


async def test_a_lost_comment_is_repaired_by_the_next_run(
    live_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    db.execute("COMMENT ON TABLE jobs IS NULL")

    await live_store.init_schema()

    await live_store.check_schema()


async def test_a_database_with_the_tables_alone_is_outdated_and_repaired_by_the_next_run(
    live_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    """As a dump of tables leaves it."""
    db.execute("DROP FUNCTION jobs_claim, jobs_finish, jobs_start, jobs_start_leased")
    with pytest.raises(SchemaOutdated, match="version 7"):
        await live_store.check_schema()

    await live_store.init_schema()

    await live_store.check_schema()


async def test_a_newer_schema_is_good_enough(
    live_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    db.execute("COMMENT ON TABLE jobs IS 'async_jobs schema 9999'")

    await live_store.check_schema()


PLAIN_INDEX = """
    DROP INDEX idx_jobs_tenant_status;
    CREATE INDEX idx_jobs_tenant_status ON jobs (tenant_id, id)
"""
IS_LEAN = """
    SELECT indpred IS NOT NULL FROM pg_index
    WHERE indexrelid = 'idx_jobs_tenant_status'::regclass
"""
LARGE = """
    ALTER TABLE jobs ALTER payload SET STORAGE PLAIN;
    INSERT INTO jobs (id, run_at, delay_tolerance, deadline_at, due, tenant_id, use_case, type,
        queue, payload)
    SELECT gen_random_uuid(), '2030-01-01Z', '0', '2030-01-01Z', true, 'acme', 'mail', 'send',
        'mail', jsonb_build_object('text', repeat('x', 6000))
    FROM generate_series(1, 8300)
"""


def test_a_small_table_gets_the_lean_index_of_lists(db: psycopg.Connection[Any]) -> None:
    db.execute(PLAIN_INDEX)
    db.execute(get_ddl())

    assert db.execute(IS_LEAN).fetchone() == (True,)


def test_a_large_table_keeps_the_index_that_it_has(db: psycopg.Connection[Any]) -> None:
    db.execute(PLAIN_INDEX)
    db.execute(LARGE)
    db.execute(get_ddl())

    assert db.execute(IS_LEAN).fetchone() == (False,)
