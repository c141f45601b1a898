"""The schema as PostgreSQL has it after the migrations, as a snapshot that a reviewer reads.

After an intended change: `UPDATE_SNAPSHOTS=1 pytest tests/architecture`.
"""

from __future__ import annotations

import psycopg
from source_tree import matches_snapshot

DESCRIBED_COLUMNS = [
    "id",
    "tenant_id",
    "use_case",
    "type",
    "queue",
    "status",
    "payload",
    "run_at",
    "delay_tolerance",
    "deadline_at",
    "priority",
    "attempts",
    "max_attempts",
    "backoff_policy",
    "lease_expires_at",
    "last_error",
    "dedupe_key",
    "enqueue_failed",
    "created_at",
    "updated_at",
]
DESCRIBED_INDEXES = {
    "idx_jobs_pending_deadline",
    "idx_jobs_tenant_status",
    "idx_jobs_use_case_status",
    "idx_jobs_dedupe_key",
}

FUNCTIONS = ["jobs_claim", "jobs_finish", "jobs_start", "jobs_start_leased"]
CONTROL_TABLES = [
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

COLUMNS = """
    SELECT format('%s %s%s%s', attname, format_type(atttypid, atttypmod),
        CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END,
        coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), ''))
    FROM pg_attribute
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = to_regclass('jobs') AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
# Servers from 18 on also list NOT NULL as constraints; the columns tell it already.
CONSTRAINTS = """
    SELECT format('CONSTRAINT %s %s', conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE conrelid = to_regclass('jobs') AND contype <> 'n'
    ORDER BY conname
"""
OPTIONS = """
    SELECT unnest(reloptions) COLLATE "C" FROM pg_class WHERE oid = to_regclass('jobs')
    ORDER BY 1
"""
INDEXES = """
    SELECT replace(indexdef, schemaname || '.', '')
    FROM pg_indexes WHERE tablename = 'jobs' ORDER BY indexname
"""
OTHER_OBJECTS = """
    SELECT format('%s %s', CASE relkind WHEN 'r' THEN 'table' ELSE relkind::text END, relname)
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'S', 't')
        AND relname <> 'jobs'
    UNION ALL
    SELECT format('function %s', proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1
"""
SOURCES = """
    SELECT replace(pg_get_functiondef(oid), 'public.', '') FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace ORDER BY proname
"""
COMMENT = "SELECT obj_description(to_regclass('jobs'), 'pg_class')"


def test_the_schema_is_that_of_the_snapshot(database: str) -> None:
    with psycopg.connect(database) as conn:
        inside = [*_texts(conn, COLUMNS), *_texts(conn, CONSTRAINTS)]
        lines = ["jobs (", ",\n".join(f"    {line}" for line in inside), ") WITH ("]
        lines += [",\n".join(f"    {line}" for line in _texts(conn, OPTIONS)), ");"]
        lines += [f"{line};" for line in _texts(conn, INDEXES)]
        lines += [f"comment: {line}" for line in _texts(conn, COMMENT)]
        lines += _texts(conn, SOURCES)

    assert matches_snapshot("schema.sql", "\n".join(lines) + "\n"), (
        "The schema has changed. If that is meant, run the tests of this folder once with "
        "UPDATE_SNAPSHOTS=1."
    )


def test_every_described_column_is_there(database: str) -> None:
    with psycopg.connect(database) as conn:
        columns = [line.partition(" ")[0] for line in _texts(conn, COLUMNS)]

    assert [name for name in DESCRIBED_COLUMNS if name not in columns] == []


def test_every_described_index_is_there(database: str) -> None:
    with psycopg.connect(database) as conn:
        indexes = _texts(conn, "SELECT indexname FROM pg_indexes WHERE tablename = 'jobs'")

    assert set(indexes) >= DESCRIBED_INDEXES


def test_beside_the_table_of_jobs_stand_only_the_named_tables_and_functions(database: str) -> None:
    with psycopg.connect(database) as conn:
        assert _texts(conn, OTHER_OBJECTS) == [
            *(f"function {name}" for name in FUNCTIONS),
            *(f"table {name}" for name in CONTROL_TABLES),
        ]


def _texts(conn: psycopg.Connection[tuple[str]], sql: str) -> list[str]:
    return [row[0] for row in conn.execute(sql.encode()).fetchall()]
