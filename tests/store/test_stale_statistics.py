"""Statistics from before a burst must not make a batch compare every job with every ticket.

After ANALYZE with only waiting jobs the planner believes that none is leased or
running. A statement that shows it such a condition gets a nested loop over the
whole batch, whose work grows with the square of it. A function keeps the plan that
its session made for it first, perhaps for an empty table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from async_jobs.models import new_job_id
from async_jobs.store.queries import query

BATCH = 476
JOBS = 10_000
STATES = {
    "release_jobs": "pending",
    "extend_attempts": "running",
}
FILL = b"""
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due)
SELECT id, 'acme', 'mail', 'send', 'mail', '{}', now(), interval '1 min',
    now() + interval '1 min', true
FROM unnest(%s::uuid[]) AS id
"""
TAKE = b"""
UPDATE jobs SET due = false, lease_seq = 1, leased_at = now(),
    lease_expires_at = now() + interval '1 h', status = %s,
    attempts = CASE WHEN %s::text = 'running' THEN 1 ELSE 0 END
WHERE id = ANY (%s)
"""


@pytest.mark.parametrize("name", STATES)
def test_a_batch_is_joined_once_with_its_tickets(name: str, fresh_database: str) -> None:
    ids = sorted(new_job_id() for _ in range(JOBS))
    with psycopg.connect(fresh_database, autocommit=True) as conn:
        conn.execute(FILL, [ids])
        conn.execute("ANALYZE jobs")
        # A nested loop and a hash join cost nearly the same for one row: which it is, is chance.
        conn.execute("SET enable_hashjoin = off")
        conn.execute("SET enable_mergejoin = off")
        batch = ids[:BATCH]
        conn.execute(TAKE, [STATES[name], STATES[name], batch])
        plan = _plan(conn, name, batch)

    assert plan["Actual Rows"] == BATCH
    assert sum(_compared_in_vain(plan)) == 0


CALLS = {
    "jobs_start": "SELECT jobs_start(%(ids)s, %(seqs)s, 'w', 3600, NULL)",
    "jobs_finish": """SELECT
        jobs_finish(%(ids)s, %(seqs)s, NULL, NULL, NULL, NULL, NULL, NULL, NULL)""",
    "jobs_start_leased": "SELECT jobs_start_leased('{mail}', %(most)s, 'w', 3600, NULL)",
    "jobs_claim": "SELECT jobs_claim('{mail}', '{mail}', %(most)s, 'w', 3600, NULL)",
}
HELD = {"jobs_start": "pending", "jobs_finish": "running", "jobs_start_leased": "pending"}
PER_ROW = 45
"""As in `test_plans.py`."""


@pytest.mark.parametrize("name", CALLS)
def test_a_function_that_was_planned_for_an_empty_table_goes_by_the_indexes(
    name: str, fresh_database: str
) -> None:
    ids = sorted(new_job_id() for _ in range(JOBS))
    with psycopg.connect(fresh_database, autocommit=True) as conn:
        conn.execute("ALTER TABLE jobs SET (autovacuum_enabled = off)")
        conn.execute("VACUUM ANALYZE jobs")
        conn.execute("INSERT INTO jobs_grants VALUES ('mail', now(), 1000, now() + '1 day')")
        _called(conn, name, ids[:4])
        conn.execute(FILL, [ids])
        if name in HELD:
            conn.execute(TAKE, [HELD[name], HELD[name], ids[:8]])
        _called(conn, name, ids[:4])

        plan = _called(conn, name, ids[4:8])

    assert plan["Actual Rows"] >= 4
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 4 * PER_ROW


def _called(conn: psycopg.Connection[Any], name: str, ids: list[UUID]) -> dict[str, Any]:
    params = {"ids": ids, "seqs": [1] * len(ids), "most": len(ids)}
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {CALLS[name]}".encode()
    found = conn.execute(explain, params).fetchone()
    assert found is not None
    plan: dict[str, Any] = found[0][0]["Plan"]
    return plan


def _plan(conn: psycopg.Connection[Any], name: str, ids: list[UUID]) -> dict[str, Any]:
    params = {
        "now": None,
        "ids": ids,
        "lease_seqs": [1] * len(ids),
        "lease_seconds": 30.0,
        "enqueue_failed": False,
    }
    found = conn.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + query(name), params).fetchone()
    assert found is not None
    plan: dict[str, Any] = found[0][0]["Plan"]
    return plan


def _compared_in_vain(plan: dict[str, Any]) -> Iterator[int]:
    yield int(plan.get("Rows Removed by Join Filter", 0)) * int(plan["Actual Loops"])
    for below in plan.get("Plans", []):
        yield from _compared_in_vain(below)
