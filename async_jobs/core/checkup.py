"""What `async-jobs doctor` makes of what it found: found, needed, do this. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

LEAST_SERVER_VERSION = 150_000
MOST_CLOCK_DIFFERENCE_SECONDS = 2.0
MOST_TRANSACTION_SECONDS = 300.0
MOST_DEAD_SHARE = 0.5
LEAST_DEAD_ROWS = 50_000
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What the server said."""

    server_epoch: float
    server_version: int
    schema_version: int
    valid_indexes: Sequence[str]
    autovacuums: bool
    oldest_transaction_seconds: float
    dead_rows: float
    live_rows: float
    is_standby: bool


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
    epoch: float,
    needed_schema: int,
    alive: Mapping[str, int],
) -> list[Finding]:
    """Everything that was looked at, in the order in which one mends it.

    *epoch* is this machine's clock at the moment the server was asked, *alive* how many processes
    of each role were seen lately.
    """
    return [*_server(examined, needed_schema), *_care(examined, epoch), *_processes(alive)]


def _server(examined: Examined, needed_schema: int) -> Iterator[Finding]:
    major = examined.server_version // 10_000
    yield _finding(
        "PostgreSQL",
        f"version {major}",
        "15 or later",
        examined.server_version >= LEAST_SERVER_VERSION,
        "upgrade the server",
    )
    yield _finding(
        "primary",
        "a standby" if examined.is_standby else "the primary",
        "the primary",
        not examined.is_standby,
        "point ASYNC_JOBS_DB_DSN at the primary, or add target_session_attrs=read-write",
    )
    yield _finding(
        "schema",
        f"version {examined.schema_version}",
        f"version {needed_schema} or later",
        examined.schema_version >= needed_schema,
        "run: async-jobs migrate",
    )
    missing = [name for name in INDEXES if name not in examined.valid_indexes]
    yield _finding(
        "indexes",
        f"without {', '.join(missing)}" if missing else f"all {len(INDEXES)}",
        "all of them, valid",
        not missing,
        "drop those that are not valid, then run: async-jobs migrate",
    )


def _care(examined: Examined, epoch: float) -> Iterator[Finding]:
    difference = abs(examined.server_epoch - epoch)
    yield _finding(
        "clock",
        f"{difference:.1f} s from the server's",
        f"at most {MOST_CLOCK_DIFFERENCE_SECONDS:g} s",
        difference <= MOST_CLOCK_DIFFERENCE_SECONDS,
        "let NTP set the clocks; forecasts and enqueued times are this machine's",
    )
    yield _finding(
        "autovacuum",
        "on" if examined.autovacuums else "off",
        "on, with track_counts",
        examined.autovacuums,
        "set autovacuum = on and track_counts = on in postgresql.conf",
    )
    dead, rows = examined.dead_rows, examined.dead_rows + examined.live_rows
    yield _finding(
        "dead rows",
        f"{dead:.0f} of {rows:.0f} versions",
        f"at most half, or {LEAST_DEAD_ROWS}",
        dead <= max(LEAST_DEAD_ROWS, MOST_DEAD_SHARE * rows),
        "run VACUUM jobs, and see what holds it back: the oldest transaction, replication slots",
    )
    oldest = examined.oldest_transaction_seconds
    yield _finding(
        "oldest transaction",
        f"{oldest:.0f} s",
        f"at most {MOST_TRANSACTION_SECONDS:g} s",
        oldest <= MOST_TRANSACTION_SECONDS,
        "end it (pg_stat_activity has its pid): no dead row can go while it is open",
    )


def _processes(alive: Mapping[str, int]) -> Iterator[Finding]:
    for role, number in alive.items():
        yield _finding(
            f"{role}s",
            f"{number} alive",
            "one or more",
            number > 0,
            f"start one: async-jobs {role}",
        )


def _finding(name: str, found: str, needed: str, is_well: bool, remedy: str) -> Finding:
    return Finding(name=name, found=found, needed=needed, remedy="" if is_well else remedy)
