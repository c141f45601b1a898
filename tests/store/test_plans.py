"""What a statement touches follows its batch, not the backlog.

Three use cases hold the same number of waiting jobs each: one with many
tenants, one where a single tenant has all of them, one where all jobs share
one deadline. The buffers of each statement are measured at 2,000 and again at
200,000 waiting jobs in all; every measured write is rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from async_jobs.core.demand import EDGES_SECONDS
from async_jobs.core.filters import JobFilter
from async_jobs.store.queries import query, statements

from .factories import MIDNIGHT
from .test_every_query import TOPICS, numbered

BATCH = 20
EARLY = MIDNIGHT - timedelta(days=31)
SIZES = (700, 67_000)
USE_CASES = ("many_tenants", "one_tenant", "one_deadline")
PER_ROW = 45
"""Buffers for one row of a batch: its page and its entries in the indexes, old and new."""
FIXED = 60

FILL = b"""
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due, leased_at, lease_expires_at, lease_seq, status, attempts, started_at,
    finished_at)
SELECT gen_random_uuid(),
    CASE WHEN shape = 'many_tenants' THEN 'tenant ' || mod(n, 50) ELSE 'acme' END,
    shape, 'send', 'mail', '{"to": "ada"}', t.at, make_interval(secs => 60),
    t.at + make_interval(secs => 60), state = 'waiting',
    CASE WHEN state IN ('leased', 'lost', 'running') THEN t.at END,
    CASE WHEN state IN ('leased', 'running') THEN t.at + interval '900 days'
        WHEN state = 'lost' THEN t.at END,
    1, CASE state WHEN 'running' THEN 'running' WHEN 'lost' THEN 'running'
        WHEN 'done' THEN 'succeeded' ELSE 'pending' END,
    CASE WHEN state IN ('running', 'lost') THEN 1 ELSE 0 END,
    CASE WHEN state IN ('running', 'lost', 'done') THEN t.at END,
    CASE WHEN state = 'done' THEN t.at END
FROM unnest(%(shapes)s::text[]) AS shape,
    unnest(%(states)s::text[], %(counts)s::int[]) AS wanted (state, count),
    generate_series(1, count) AS n,
    LATERAL (SELECT timestamptz '2029-12-01 00:00Z' + CASE
        WHEN state = 'scheduled' THEN interval '300 days' + make_interval(secs => n)
        WHEN state = 'ripe' THEN make_interval(secs => n)
        WHEN shape = 'one_deadline' THEN interval '0'
        ELSE make_interval(secs => mod(n, 5000)) END AS at) AS t
"""

GRANT = b"""
INSERT INTO jobs_grants SELECT use_case, now(), 1000, now() + interval '1 day'
FROM unnest(%s::text[]) AS use_case
ON CONFLICT DO NOTHING
"""

Params = dict[str, Any]
BEFORE_ALL_FLOWS: Params = {
    "after_tenant": "",
    "after_type": "",
    "after_retry": False,
    "after_priority": -32_768,
}


class Table:
    """A filled table of one size, and the buffers of statements on it."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.ids: dict[tuple[str, str], list[UUID]] = {}

    def fill(self, waiting: int, *, first: bool) -> None:
        """Add waiting jobs; the first time also what is in flight, ripe, scheduled and done."""
        states = {"waiting": waiting}
        if first:
            states |= dict.fromkeys(("leased", "running", "lost", "ripe", "done"), 2 * BATCH)
            states["scheduled"] = 200
        self.add(states)

    def add(self, states: dict[str, int]) -> None:
        """Add so many jobs in each state, to every use case."""
        indexes = [
            row[0]
            for row in self.conn.execute(
                "SELECT indexdef FROM pg_indexes WHERE tablename = 'jobs' AND indexname LIKE 'idx%'"
            )
        ]
        for name in [index.split(" ON ")[0].split()[-1] for index in indexes]:
            self.conn.execute(f"DROP INDEX {name}".encode())
        self.conn.execute(
            FILL,
            {"shapes": list(USE_CASES), "states": list(states), "counts": list(states.values())},
        )
        for index in indexes:
            self.conn.execute(index.encode())
        self.conn.execute("VACUUM ANALYZE jobs")
        self.conn.execute(GRANT, [list(USE_CASES)])

    def ids_of(self, use_case: str, status: str) -> list[UUID]:
        """Jobs of *use_case* that are running, or pending and leased."""
        return [
            row[0]
            for row in self.conn.execute(
                "SELECT id FROM jobs WHERE use_case = %s AND status = %s AND leased_at IS NOT NULL "
                "LIMIT %s",
                [use_case, status, BATCH],
            )
        ]

    def waiting_ids(self, use_case: str) -> list[UUID]:
        rows = self.conn.execute(
            "SELECT id FROM jobs WHERE use_case = %s AND due ORDER BY deadline_at, id LIMIT %s",
            [use_case, BATCH],
        )
        return [row[0] for row in rows]

    def buffers(self, name: str, params: Params, *, generic: bool = False) -> tuple[int, int]:
        """(buffers, rows) of one run, which is rolled back.

        A function reads catalogs where its statements are planned: in its first call, and again
        when others on the server have changed so much that the session starts its caches anew.
        """
        calls = 5 if b"FROM jobs_" in text_of(name) else 1
        return min(self._rolled_back(name, params, generic=generic) for _ in range(calls))

    def _rolled_back(self, name: str, params: Params, *, generic: bool) -> tuple[int, int]:
        with self.conn.transaction(force_rollback=True):
            return self._generic(name, params) if generic else self._planned(name, params)

    def _planned(self, name: str, params: Params) -> tuple[int, int]:
        explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
        answer = self.conn.execute(explain + text_of(name), params, prepare=False)
        return measured(answer.fetchone())

    def _generic(self, name: str, params: Params) -> tuple[int, int]:
        """As a prepared statement that has settled on a plan for any values."""
        text, names = numbered(text_of(name))
        self.conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        self.conn.execute(b"PREPARE measured AS " + text)
        try:
            values = b", ".join([b"%s"] * len(names))
            cursor = psycopg.ClientCursor(self.conn)
            cursor.execute(
                b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE measured (" + values + b")",
                [params[one] for one in names],
            )
            return measured(cursor.fetchone())
        finally:
            self.conn.execute("DEALLOCATE measured")


def text_of(name: str) -> bytes:
    return query(name, next(topic for topic in TOPICS if name in statements(topic)))


def measured(answer: Any) -> tuple[int, int]:
    plan = (answer[0] if isinstance(answer[0], list) else json.loads(answer[0]))[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], int(plan["Actual Rows"])


@pytest.fixture
def table(fresh_database: str) -> Iterator[Table]:
    with psycopg.connect(fresh_database, autocommit=True) as conn:
        conn.execute("SET maintenance_work_mem = '256MB'")
        yield Table(conn)


def statements_for(table: Table, use_case: str) -> Iterator[tuple[str, Params, int, bool]]:
    """(statement, its parameters, the rows of its batch, whether it may be prepared)."""
    now = {"now": MIDNIGHT, "lease_seconds": 30.0, "worker": "w", "most": BATCH, "slots": BATCH}
    leased, running = table.ids_of(use_case, "pending"), table.ids_of(use_case, "running")
    tenant = "tenant 1" if use_case == "many_tenants" else "acme"
    yield "lease_due", {**now, "use_case": use_case}, BATCH, False
    turn = {**now, "longest_pause_ms": "2500", "asked_seconds": 3.0}
    yield "lock_use_case", {**turn, "use_case": use_case}, 1, True
    yield "claim_due", {**now, "use_cases": [use_case], "queues": ["mail"]}, BATCH, True
    ages = {"old_seconds": 0.5, "new_seconds": 1.0}
    yield "count_in_flight", {**now, "use_case": use_case, **ages}, 6 * BATCH, True
    yield "start_jobs", {**now, "ids": leased, "lease_seqs": [1] * BATCH}, BATCH, True
    yield "extend_attempts", {**now, "ids": running, "lease_seqs": [1] * BATCH}, BATCH, True
    yield "finish_attempts", finishes(running), BATCH, True
    yield "start_leased", {**now, "queues": ["mail"]}, 20 * BATCH, True
    yield "rescue_jobs", now, 20 * BATCH, False
    yield "promote_due", now, BATCH, False
    yield "survey", {"now": MIDNIGHT, "use_cases": list(USE_CASES)}, 20 * BATCH, True
    yield "count_unfinished", {
        "tenant_id": tenant,
        "use_cases": list(USE_CASES),
        "most": BATCH,
    }, 10 * BATCH, False
    yield "sample_running", {
        **now,
        "tenant_id": tenant,
        "use_cases": list(USE_CASES),
    }, 20 * BATCH, False
    listing = {"payloads": False, "use_case": None, "status": None, "before": None, "most": BATCH}
    listing["look"] = BATCH
    yield "list_jobs", {**listing, "tenant_id": tenant}, 12 * BATCH, False
    running_jobs = {**listing, "tenant_id": None, "status": "running", "use_case": use_case}
    yield "list_jobs", running_jobs, 12 * BATCH, False
    yield "list_jobs", {**listing, "tenant_id": None, "status": "dead"}, 12 * BATCH, False
    rare = {"tenant_id": tenant, "use_case": "message_labeling"}
    yield "list_jobs", {**listing, **rare}, 12 * BATCH, False
    rare = {**JobFilter(status="dead").values(), "tenant_id": tenant, "before": None, "as_of": None}
    yield "find_matching", {**now, **rare, "look": BATCH}, 12 * BATCH, False
    held = {**JobFilter(use_case=use_case, status="running", late=True).values(), "before": None}
    held["as_of"] = None
    yield "find_matching", {**now, **held, "look": BATCH}, 12 * BATCH, False
    yield "list_chosen", {"ids": running}, BATCH, True
    yield "cancel_matching", {**now, "ids": running, "status": None}, BATCH, True
    yield "get_pace", {**now, "use_case": use_case}, BATCH, False
    yield "count_due_before", {
        **now,
        "use_case": use_case,
        "within_seconds": 1e6,
    }, BATCH, False
    yield "count_due_of_tenant", {
        **now,
        "use_case": use_case,
        "tenant_id": tenant,
        "within_seconds": 1e6,
    }, BATCH, False
    yield "find_due", {**now, "use_case": use_case, "timely": False}, BATCH, False
    yield "find_flows", {**now, "use_case": use_case, **BEFORE_ALL_FLOWS, "most": 100}, 50, False
    yield "find_candidates", {
        **now,
        "use_case": use_case,
        "tenant_ids": [tenant] * 2,
        "types": ["send"] * 2,
        "retries": [False] * 2,
        "priorities": [0] * 2,
        "lates": [True, False],
    }, 2 * BATCH, False
    yield "lease_chosen", {
        **now,
        "ids": table.waiting_ids(use_case),
        "probes": [],
    }, BATCH, True
    yield "sample_finished", {**now, "use_case": use_case, "since": None}, BATCH, False
    yield "find_demand", {
        "now": MIDNIGHT,
        "use_cases": [use_case],
        "afters_seconds": [None, *EDGES_SECONDS[:-1]],
        "untils_seconds": list(EDGES_SECONDS),
        "most": BATCH,
    }, len(EDGES_SECONDS), False
    yield "find_pulse", {"now": MIDNIGHT, "use_cases": [use_case]}, 6 * BATCH, True
    yield "find_tenants", {"use_case": use_case, "most": 100}, 50, False
    yield "end_late", {**now, "use_case": use_case, "status": "dead"}, BATCH, False
    yield "read_demand", {
        "now": EARLY,
        "use_case": use_case,
        "most": BATCH,
        "newest": BATCH,
        "finished": BATCH,
    }, 6 * BATCH, False
    yield "prune_finished", {**now, "use_case": use_case, "retention_seconds": 1.0}, BATCH, False


def finishes(ids: list[UUID]) -> Params:
    count = len(ids)
    return {
        "now": MIDNIGHT,
        "ids": ids,
        "lease_seqs": [1] * count,
        "statuses": ["succeeded"] * count,
        "delays_seconds": [None] * count,
        "attempts_back": [0] * count,
        "errors": [None] * count,
        "traceparents": None,
        "results": ["{}"] * count,
    }


def measure(table: Table) -> dict[tuple[str, str, bool], tuple[int, int, int]]:
    """(buffers, rows, batch) by statement, use case and kind of plan."""
    found = {}
    for use_case in USE_CASES:
        for name, params, batch, prepared in statements_for(table, use_case):
            for generic in (False, True) if prepared else (False,):
                found[name, use_case, generic] = (
                    *table.buffers(name, params, generic=generic),
                    batch,
                )
    return found


@pytest.mark.slow
def test_no_statement_of_the_core_path_touches_more_when_the_backlog_grows(table: Table) -> None:
    table.fill(SIZES[0], first=True)
    small = measure(table)
    table.fill(SIZES[1] - SIZES[0], first=False)
    large = measure(table)

    too_many = {key: found for key, found in large.items() if found[0] > FIXED + PER_ROW * found[2]}
    grown = {
        key: (small[key], found)
        for key, found in large.items()
        if found[0] > FIXED + 2 * small[key][0] + 3 * found[2]
    }
    idle = {key for key, found in large.items() if found[1] == 0}
    assert not too_many
    assert not grown
    assert not idle


@pytest.mark.slow
def test_a_scan_ends_at_the_servers_own_clock(table: Table) -> None:
    """With a clock that a test gives, a scan that reads everything to come would go unseen."""
    table.fill(1, first=True)
    states = {"waiting": 3_000, "scheduled": 3_000, "done": 3_000}
    table.add(states)

    buffers = {
        (name, use_case): table.buffers(name, params)[0]
        for use_case in USE_CASES
        for name, params in clocked_statements(use_case)
    }

    assert {key: count for key, count in buffers.items() if count > FIXED} == {}


def clocked_statements(use_case: str) -> Iterator[tuple[str, Params]]:
    """Statements of which nothing has come yet by the server's clock: the fill is of 2029."""
    now = {"now": None, "use_case": use_case, "most": BATCH}
    yield "promote_due", now
    yield "prune_finished", {**now, "retention_seconds": 0.0}
    yield "prune_by_status", {
        **now,
        "retention_seconds": 0.0,
        "statuses": ["succeeded"],
        "after": None,
        "after_id": None,
    }
    yield "end_late", {**now, "status": "dead"}
    yield "count_due_before", {**now, "within_seconds": 60.0}
    yield "count_due_of_tenant", {**now, "tenant_id": "acme", "within_seconds": 60.0}
