"""`async-jobs doctor`: what it finds, what it says to do, the exit code."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from command_line import UNREACHABLE, Ended, run

from async_jobs.core.checkup import INDEXES, Examined, Finding, findings

HEALTHY: dict[str, Any] = {
    "server_epoch": 1_000.0,
    "server_pid": 7,
    "server_version": 160_004,
    "schema_version": 5,
    "valid_indexes": INDEXES,
    "invalid_indexes": [],
    "unused_indexes": [],
    "updates": 1e6,
    "autovacuums": True,
    "autovacuums_table": True,
    "vacuum_share": 0.02,
    "vacuum_threshold": 2_000.0,
    "since_vacuum_seconds": 3_600.0,
    "oldest_transaction_seconds": 1.0,
    "oldest_transaction": None,
    "sees_all_sessions": True,
    "prepared_transactions": 0,
    "prepared_seconds": 0.0,
    "idle_slots": [],
    "dead_rows": 10.0,
    "live_rows": 100.0,
    "is_standby": False,
    "clock_difference_seconds": 0.5,
}
ALIVE = """
    INSERT INTO jobs_processes (name, role, version, started_at, seen_at, serves)
    SELECT role, role, '1', now(), now(), '{}' FROM unnest(ARRAY['scheduler', 'worker']) AS role
"""


def looked_at(**given: Any) -> list[Finding]:
    """What is found when this differs from a healthy system."""
    changes = dict(given)
    prepares = changes.pop("prepares", True)
    alive = changes.pop("alive", {"scheduler": 1, "worker": 1})
    examined = Examined(**{**HEALTHY, **changes})
    return findings(examined, needed_schema=5, prepares=prepares, alive=alive)


HOLDER = {"pid": 4711, "role": "ada", "name": "psql", "state": "idle in transaction"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"server_version": 140_000}, ["PostgreSQL"]),
        ({"is_standby": True}, ["primary"]),
        ({"schema_version": 4}, ["schema"]),
        ({"schema_version": 6}, []),
        ({"valid_indexes": INDEXES[1:]}, ["indexes"]),
        ({"invalid_indexes": ["lean"]}, ["invalid indexes"]),
        ({"unused_indexes": ["idx_jobs_in_flight"]}, ["index use"]),
        ({"unused_indexes": ["idx_jobs_in_flight"], "updates": 999.0}, []),
        ({"unused_indexes": ["idx_jobs_dedupe_key"]}, []),
        ({"clock_difference_seconds": 2.1}, ["clock"]),
        ({"is_pooled": True}, ["connection"]),
        ({"is_pooled": True, "prepares": False}, []),
        ({"autovacuums": False}, ["autovacuum"]),
        ({"autovacuums_table": False}, ["table settings"]),
        ({"vacuum_share": 0.2}, ["table settings"]),
        ({"dead_rows": 7_000.0}, ["last vacuum"]),
        ({"dead_rows": 7_000.0, "since_vacuum_seconds": None}, ["last vacuum"]),
        ({"dead_rows": 7_000.0, "since_vacuum_seconds": 60.0}, []),
        ({"dead_rows": 60_000.0, "since_vacuum_seconds": 60.0}, ["dead rows"]),
        ({"dead_rows": 60_000.0, "since_vacuum_seconds": 60.0, "live_rows": 70_000.0}, []),
        ({"oldest_transaction_seconds": 301.0}, ["oldest transaction"]),
        ({"prepared_transactions": 1, "prepared_seconds": 301.0}, ["prepared transactions"]),
        ({"prepared_transactions": 1, "prepared_seconds": 299.0}, []),
        ({"idle_slots": ["backup"]}, ["replication slots"]),
        ({"alive": {"scheduler": 0, "worker": 2}}, ["schedulers"]),
        ({"alive": {"scheduler": 1, "worker": 0}}, ["workers"]),
    ],
)
def test_what_is_not_well_is_named(changes: dict[str, Any], named: list[str]) -> None:
    assert [each.name for each in looked_at(**changes) if not each.is_well] == named


def test_who_holds_the_oldest_transaction_is_named_and_how_to_end_it() -> None:
    found = {
        each.name: each
        for each in looked_at(oldest_transaction_seconds=400.0, oldest_transaction=HOLDER)
    }

    one = found["oldest transaction"]
    assert one.found == "400 s, held by pid 4711 (ada, 'psql', idle in transaction)"
    assert "pg_terminate_backend(4711)" in one.remedy


def test_a_role_that_sees_its_own_sessions_only_says_so() -> None:
    found = {each.name: each for each in looked_at(sees_all_sessions=False)}

    assert "other roles' sessions are not seen" in found["oldest transaction"].found


def ask(*words: str, dsn: str) -> Ended:
    return run("main", "doctor", *words, env={"ASYNC_JOBS_DB_DSN": dsn}, patience_seconds=20)


def test_a_system_where_all_is_well_ends_with_0(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(ALIVE)

    ended = ask("--json", dsn=database)

    assert [each for each in json.loads(ended.said) if each["remedy"]] == []
    assert ended.code == 0


def test_what_is_wrong_is_told_with_what_to_do(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DROP INDEX idx_jobs_scheduled")

    ended = ask(dsn=database)

    assert ended.code == 1
    assert "BAD indexes: without idx_jobs_scheduled; needed: all of them, valid" in ended.lines
    assert "    do this: start one: async-jobs worker" in ended.lines


def test_a_database_without_the_schema_is_told_to_migrate(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DROP TABLE jobs, jobs_processes CASCADE")

    ended = ask(dsn=database)

    assert ended.code == 1
    assert "    do this: run: async-jobs migrate" in ended.lines


def test_a_database_out_of_reach_ends_with_2() -> None:
    ended = run(
        "main",
        "doctor",
        env={"ASYNC_JOBS_DB_DSN": UNREACHABLE},
    )

    assert ended.code == 2
    assert "sesame" not in ended.said
