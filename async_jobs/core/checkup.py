"""What `async-jobs doctor` makes of what it found: found, needed, do this. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_SERVER_VERSION = 150_000
MOST_CLOCK_DIFFERENCE_SECONDS = 2.0
MOST_TRANSACTION_SECONDS = 300.0
MOST_DEAD_SHARE = 0.5
LEAST_DEAD_ROWS = 50_000
MOST_VACUUM_SHARE = 0.1
LATE_VACUUM = 3.0
"""Times the dead rows at which autovacuum is to come."""
RECENT_SECONDS = 600.0
TOLD_BY_USE = 1_000
"""An index without a scan is told once so many rows were changed: every pass looks at it."""
INDEXES = (
    "jobs_pkey",
    "idx_jobs_pending_deadline",
    "idx_jobs_tenant_deadline",
    "idx_jobs_in_flight",
    "idx_jobs_scheduled",
    "idx_jobs_tenant_scheduled",
    "idx_jobs_tenant_status",
    "idx_jobs_use_case_status",
    "idx_jobs_dedupe_key",
)
USED_BY_EVERY_PASS = (
    "jobs_pkey",
    "idx_jobs_pending_deadline",
    "idx_jobs_in_flight",
    "idx_jobs_scheduled",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What the server said. `since_vacuum_seconds` is None if the table never was."""

    server_epoch: float
    server_pid: int
    server_version: int
    schema_version: int
    valid_indexes: Sequence[str]
    invalid_indexes: Sequence[str]
    unused_indexes: Sequence[str]
    updates: float
    autovacuums: bool
    autovacuums_table: bool
    vacuum_share: float
    vacuum_threshold: float
    since_vacuum_seconds: float | None
    oldest_transaction_seconds: float
    oldest_transaction: Mapping[str, Any] | None
    sees_all_sessions: bool
    prepared_transactions: int
    prepared_seconds: float
    idle_slots: Sequence[str]
    dead_rows: float
    live_rows: float
    is_standby: bool
    clock_difference_seconds: float = 0.0
    is_pooled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; *remedy* is empty where it is well."""

    name: str
    found: str
    needed: str
    remedy: str = ""

    @property
    def is_well(self) -> bool:
        return not self.remedy


def findings(
    examined: Examined,
    *,
    needed_schema: int,
    prepares: bool,
    alive: Mapping[str, int],
) -> list[Finding]:
    """Everything about the server, in the order in which one mends it.

    *prepares*: statements are prepared, as configured. *alive* is how many processes of each role
    were seen lately.
    """
    return [
        *_server(examined, needed_schema, prepares),
        *_indexes(examined),
        *_upkeep(examined),
        *_held_back(examined),
        *_processes(alive),
    ]


def finding(name: str, found: str, needed: str, is_well: bool, remedy: str) -> Finding:
    """*remedy* counts only where it is not well."""
    return Finding(name=name, found=found, needed=needed, remedy="" if is_well else remedy)


def _server(examined: Examined, needed_schema: int, prepares: bool) -> Iterator[Finding]:
    major = examined.server_version // 10_000
    yield finding(
        "PostgreSQL",
        f"version {major}",
        "15 or later",
        examined.server_version >= LEAST_SERVER_VERSION,
        "upgrade the server",
    )
    yield finding(
        "primary",
        "a standby" if examined.is_standby else "the primary",
        "the primary",
        not examined.is_standby,
        "point ASYNC_JOBS_DB_DSN at the primary, or add target_session_attrs=read-write",
    )
    yield finding(
        "schema",
        f"version {examined.schema_version}",
        f"version {needed_schema} or later",
        examined.schema_version >= needed_schema,
        "run: async-jobs migrate",
    )
    difference = examined.clock_difference_seconds
    yield finding(
        "clock",
        f"{difference:.1f} s from the server's",
        f"at most {MOST_CLOCK_DIFFERENCE_SECONDS:g} s",
        difference <= MOST_CLOCK_DIFFERENCE_SECONDS,
        "let NTP set the clocks; forecasts and enqueued times are this machine's",
    )
    way = "through a pooler" if examined.is_pooled else "directly"
    yield finding(
        "connection",
        f"{way}, prepared statements {'on' if prepares else 'off'}",
        "prepared statements off through a pooler in transaction mode",
        not (examined.is_pooled and prepares),
        "set ASYNC_JOBS_DB_PREPARED_STATEMENTS=off everywhere, unless it pools whole sessions",
    )


def _indexes(examined: Examined) -> Iterator[Finding]:
    missing = [name for name in INDEXES if name not in examined.valid_indexes]
    yield finding(
        "indexes",
        f"without {', '.join(missing)}" if missing else f"all {len(INDEXES)}",
        "all of them, valid",
        not missing,
        "drop those that are not valid, then run: async-jobs migrate",
    )
    invalid = ", ".join(examined.invalid_indexes)
    yield finding(
        "invalid indexes",
        invalid or "none",
        "none: each costs every write, and serves nobody",
        not invalid,
        f"run DROP INDEX CONCURRENTLY {invalid}, and build it anew if it is one of ours",
    )
    changed = examined.updates >= TOLD_BY_USE
    unused = [name for name in USED_BY_EVERY_PASS if name in examined.unused_indexes and changed]
    yield finding(
        "index use",
        f"never used: {', '.join(unused)}" if unused else "used, or too few changes to tell",
        f"{', '.join(USED_BY_EVERY_PASS)} used by every pass",
        not unused,
        "run ANALYZE jobs, and see that no setting such as enable_indexscan is off",
    )


def _upkeep(examined: Examined) -> Iterator[Finding]:
    yield finding(
        "autovacuum",
        "on" if examined.autovacuums else "off",
        "on, with track_counts",
        examined.autovacuums,
        "set autovacuum = on and track_counts = on in postgresql.conf",
    )
    share = examined.vacuum_share
    allowed = "on" if examined.autovacuums_table else "off"
    yield finding(
        "table settings",
        f"autovacuum {allowed} for jobs, at {100 * share:g} % dead rows",
        f"on, at {100 * MOST_VACUUM_SHARE:g} % or less",
        examined.autovacuums_table and share <= MOST_VACUUM_SHARE,
        "run ALTER TABLE jobs SET (autovacuum_enabled = true, "
        "autovacuum_vacuum_scale_factor = 0.02)",
    )
    dead, rows = examined.dead_rows, examined.dead_rows + examined.live_rows
    due_at = examined.vacuum_threshold + share * examined.live_rows
    ago = examined.since_vacuum_seconds
    yield finding(
        "last vacuum",
        f"{'never' if ago is None else f'{ago:.0f} s ago'}, {dead:.0f} dead rows; "
        f"due at {due_at:.0f}",
        f"at most {LATE_VACUUM:g} times as many as it is due at, or a vacuum within 10 minutes",
        dead <= LATE_VACUUM * due_at or (ago is not None and ago <= RECENT_SECONDS),
        "see pg_stat_progress_vacuum; raise autovacuum_max_workers, or run VACUUM jobs",
    )
    yield finding(
        "dead rows",
        f"{dead:.0f} of {rows:.0f} versions",
        f"at most half, or {LEAST_DEAD_ROWS}",
        dead <= max(LEAST_DEAD_ROWS, MOST_DEAD_SHARE * rows),
        "run VACUUM jobs, and see below what holds it back",
    )


def _held_back(examined: Examined) -> Iterator[Finding]:
    """What keeps dead rows from going."""
    oldest, holder = examined.oldest_transaction_seconds, examined.oldest_transaction or {}
    by = ", held by pid {pid} ({role}, {name!r}, {state})".format(**holder) if holder else ""
    blind = "" if examined.sees_all_sessions else "; other roles' sessions are not seen"
    yield finding(
        "oldest transaction",
        f"{oldest:.0f} s{by}{blind}",
        f"at most {MOST_TRANSACTION_SECONDS:g} s",
        oldest <= MOST_TRANSACTION_SECONDS,
        f"end it with pg_terminate_backend({holder.get('pid')}); no dead row goes before",
    )
    number, age = examined.prepared_transactions, examined.prepared_seconds
    yield finding(
        "prepared transactions",
        f"{number}, the oldest {age:.0f} s" if number else "none",
        f"none older than {MOST_TRANSACTION_SECONDS:g} s",
        age <= MOST_TRANSACTION_SECONDS,
        "end them with COMMIT PREPARED or ROLLBACK PREPARED; pg_prepared_xacts has their names",
    )
    slots = ", ".join(examined.idle_slots)
    yield finding(
        "replication slots",
        f"idle: {slots}" if slots else "none that is idle and holds rows",
        "none that is idle and holds rows",
        not slots,
        "start their readers again, or drop them with pg_drop_replication_slot",
    )


def _processes(alive: Mapping[str, int]) -> Iterator[Finding]:
    for role, number in alive.items():
        yield finding(
            f"{role}s",
            f"{number} alive",
            "one or more",
            number > 0,
            f"start one: async-jobs {role}",
        )
