"""`async-jobs doctor`: what it finds, what it says to do, the exit code."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from command_line import UNREACHABLE, Ended, run

from async_jobs.core.checkup import INDEXES, Examined, findings

HEALTHY: dict[str, Any] = {
    "server_epoch": 1_000.0,
    "server_version": 160_004,
    "schema_version": 5,
    "valid_indexes": INDEXES,
    "autovacuums": True,
    "oldest_transaction_seconds": 1.0,
    "dead_rows": 10.0,
    "live_rows": 100.0,
    "is_standby": False,
}
ALIVE = """
    INSERT INTO jobs_processes (name, role, version, started_at, seen_at, serves)
    SELECT role, role, '1', now(), now(), '{}' FROM unnest(ARRAY['scheduler', 'worker']) AS role
"""


def ill(**changes: Any) -> list[str]:
    """What is not well when this differs from a healthy system."""
    alive = changes.pop("alive", {"scheduler": 1, "worker": 1})
    found = findings(
        Examined(**{**HEALTHY, **changes}), epoch=1_000.5, needed_schema=5, alive=alive
    )
    return [each.name for each in found if not each.is_well]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"server_version": 140_000}, ["PostgreSQL"]),
        ({"is_standby": True}, ["primary"]),
        ({"schema_version": 4}, ["schema"]),
        ({"schema_version": 6}, []),
        ({"valid_indexes": INDEXES[1:]}, ["indexes"]),
        ({"server_epoch": 1_003.0}, ["clock"]),
        ({"server_epoch": 998.0}, ["clock"]),
        ({"autovacuums": False}, ["autovacuum"]),
        ({"dead_rows": 60_000.0}, ["dead rows"]),
        ({"dead_rows": 60_000.0, "live_rows": 70_000.0}, []),
        ({"oldest_transaction_seconds": 301.0}, ["oldest transaction"]),
        ({"alive": {"scheduler": 0, "worker": 2}}, ["schedulers"]),
        ({"alive": {"scheduler": 1, "worker": 0}}, ["workers"]),
    ],
)
def test_what_is_not_well_is_named(changes: dict[str, Any], named: list[str]) -> None:
    assert ill(**changes) == named


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
        conn.execute("DROP TABLE jobs, jobs_processes")

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
