"""An audit of the table `jobs` that needs nothing of the code under test, and the invariants.

    install    a trigger notes every change with its transaction and the process that made it
    handlers   append a line to a file when they start and end; the file outlives every fault
    callers    note what they were told, after they were told it
    check      gathers all three and runs one query for each invariant; each row is a violation

The order of commits is that of their time stamps (`track_commit_timestamp`). Which invariant
means what is written in `audit.sql`, above each query.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.range import TimestamptzRange
from starvation import Record

SERVER_OPTIONS = {"track_commit_timestamp": "on"}
MOST_SHOWN = 5

_TEXT = (Path(__file__).parent / "audit.sql").read_text()
_STATEMENTS = dict(re.findall(r"(?ms)^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", _TEXT))
INVARIANTS = tuple(name for name in _STATEMENTS if re.fullmatch(r"I\d\d", name))

Outage = tuple[datetime, datetime]


@dataclass
class Told:
    """What callers were told: the ledger."""

    lines: list[tuple[UUID, str, datetime, str | None]] = field(default_factory=list)

    def note(self, what: str, job_ids: Sequence[UUID], dedupe_key: str | None = None) -> None:
        """*what* (stored, cancelled) was acknowledged just now."""
        now = datetime.now(UTC)
        self.lines += [(job_id, what, now, dedupe_key) for job_id in job_ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a run was configured with, as far as invariants ask."""

    capacities: Mapping[str, int]
    quotas: Mapping[str, int] = field(default_factory=dict)
    interval_seconds: float = 0.2
    gap_seconds: float = 5.3
    outages: Sequence[Outage] = ()
    secrets: Sequence[str] = ()
    most_sessions: int = 60
    every: int = 1
    """Every how manieth lease is compared with what waited: the only query that grows squarely."""


def install(conn: psycopg.Connection[Any]) -> None:
    """Audit the table `jobs` of this database from now on."""
    conn.execute(_STATEMENTS["install"].encode())


def check(
    conn: psycopg.Connection[Any],
    terms: Terms,
    *,
    runs: Path,
    told: Told | None = None,
    record: Record | None = None,
    leaving_out: Sequence[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """The violations by invariant; empty when every invariant holds."""
    gather(conn, runs, told or Told(), record or Record())
    given = _params(terms)
    found = {name: _rows(conn, name, given) for name in INVARIANTS if name not in leaving_out}
    return {name: rows for name, rows in found.items() if rows}


def figures(conn: psycopg.Connection[Any], terms: Terms) -> dict[str, Any]:
    """What happened, in numbers; after `check`."""
    return _rows(conn, "figures", _params(terms))[0]


def shown(violations: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """For a failing test: how many of each, and the first few."""
    return "\n".join(
        f"{name}: {len(rows)} violations, such as\n  "
        + "\n  ".join(str(dict(row)) for row in rows[:MOST_SHOWN])
        for name, rows in violations.items()
    )


def gather(conn: psycopg.Connection[Any], runs: Path, told: Told, record: Record) -> None:
    """Load what handlers, callers and the machine wrote, beside what the trigger wrote."""
    conn.execute("TRUNCATE audit_runs, audit_told, audit_starved")
    to_utc = time.time() - time.monotonic()
    lines = runs.read_text().splitlines() if runs.exists() else []
    with conn.cursor() as cursor:
        with cursor.copy("COPY audit_runs FROM STDIN") as copy:
            for line in lines:
                *facts, at, type, queue = line.split()
                began = datetime.fromtimestamp(float(at) + to_utc, UTC)
                job_id, seq, attempt, pid, event = facts
                copy.write_row((job_id, seq, attempt, pid, event, began, type, queue))
        with cursor.copy("COPY audit_told FROM STDIN") as copy:
            for each in told.lines:
                copy.write_row(each)
        with cursor.copy("COPY audit_starved FROM STDIN") as copy:
            for moment, seconds in zip(record.moments, record.totals, strict=False):
                copy.write_row((datetime.fromtimestamp(moment + to_utc, UTC), seconds))
    conn.execute(_STATEMENTS["gather"].encode())


def _rows(
    conn: psycopg.Connection[Any], name: str, given: Mapping[str, Any]
) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_STATEMENTS[name].encode(), given).fetchall()


def _params(terms: Terms) -> dict[str, Any]:
    return {
        "capacities": json.dumps(dict(terms.capacities)),
        "quotas": json.dumps(dict(terms.quotas)),
        "interval_seconds": terms.interval_seconds,
        "gap_seconds": terms.gap_seconds,
        "outages": [TimestamptzRange(*each) for each in terms.outages],
        "secrets": list(terms.secrets),
        "most_sessions": terms.most_sessions,
        "every": terms.every,
    }
