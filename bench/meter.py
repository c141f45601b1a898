"""What a stretch of work cost: statements, WAL, SQS requests, CPU time; by difference.

`Meter.read` looks at the counters of the servers and the processes; `cost` is the
difference of two looks, the harness's own statements taken off.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench import processes
from bench.stand import Stand

_WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
_STATEMENTS = """
    SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(wal_bytes), 0)::bigint,
        coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint
    FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
    WHERE datname = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The counters at one moment."""

    at: float
    machine_seconds: float
    postgres_seconds: float
    sqs_seconds: float
    worker_seconds: dict[str, float]
    command_seconds: float
    wal_bytes: int
    statements: int
    statements_wal_bytes: int
    buffers: int
    sqs_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What happened between two readings, in all."""

    seconds: float
    postgres_seconds: float
    sqs_seconds: float
    worker_seconds: float
    by_role: dict[str, float]
    other_cores: float
    wal_bytes: int
    statements: int
    statements_wal_bytes: int
    buffers: int
    sqs_requests: int

    def per_job(self, jobs: int) -> dict[str, float]:
        """The figures for one job; CPU in microseconds."""
        figures = {
            "statements": self.statements / jobs,
            "wal_bytes": self.wal_bytes / jobs,
            "buffers": self.buffers / jobs,
            "sqs_requests": self.sqs_requests / jobs,
            "postgres_us": self.postgres_seconds / jobs * 1e6,
            "sqs_us": self.sqs_seconds / jobs * 1e6,
            "worker_us": self.worker_seconds / jobs * 1e6,
            "other_cores": self.other_cores,
        }
        roles = {f"role_{role}_us": spent / jobs * 1e6 for role, spent in self.by_role.items()}
        figures["cpu_us"] = figures["postgres_us"] + figures["worker_us"]
        return {name: round(value, 4) for name, value in (figures | roles).items()}

    def per_minute(self) -> dict[str, float]:
        """The figures for one minute; CPU in seconds."""
        minutes = self.seconds / 60
        figures = {
            "statements": self.statements / minutes,
            "wal_bytes": self.wal_bytes / minutes,
            "sqs_requests": self.sqs_requests / minutes,
            "postgres_cpu_seconds": self.postgres_seconds / minutes,
            "worker_cpu_seconds": self.worker_seconds / minutes,
        }
        return {name: round(value, 3) for name, value in figures.items()}


class Meter:
    """Reads the counters that concern one stand."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand

    def read(self) -> Reading:
        """All counters now."""
        stand, servers = self._stand, self._stand.servers
        wal = servers.control.execute(_WAL).fetchone()
        statements = servers.control.execute(_STATEMENTS, (stand.database,)).fetchone()
        assert wal is not None
        assert statements is not None
        return Reading(
            at=time.monotonic(),
            machine_seconds=processes.machine_busy_seconds(),
            postgres_seconds=processes.cpu_seconds(servers.postgres_pid),
            sqs_seconds=processes.cpu_seconds(servers.sqs_pid),
            worker_seconds=processes.cpu_by_role(stand.pids),
            command_seconds=stand.command_seconds,
            wal_bytes=int(wal[0]),
            statements=int(statements[0]) - stand.own_statements,
            statements_wal_bytes=int(statements[1]),
            buffers=int(statements[2]),
            sqs_requests=servers.sqs_requests(),
        )


def cost(before: Reading, after: Reading, *, cpu_from: Reading | None = None) -> Cost:
    """What happened from *before* to *after*; CPU time only from *cpu_from* on, if given."""
    busy_from = cpu_from or before
    by_role = {
        role: spent - busy_from.worker_seconds.get(role, 0.0)
        for role, spent in after.worker_seconds.items()
    }
    postgres = after.postgres_seconds - busy_from.postgres_seconds
    sqs = after.sqs_seconds - busy_from.sqs_seconds
    seconds = after.at - busy_from.at
    everything = after.machine_seconds - busy_from.machine_seconds
    ours = postgres + sqs + sum(by_role.values())
    ours += after.command_seconds - busy_from.command_seconds
    return Cost(
        seconds=after.at - before.at,
        postgres_seconds=postgres,
        sqs_seconds=sqs,
        worker_seconds=sum(by_role.values()),
        by_role=by_role,
        other_cores=max(0.0, everything - ours) / max(seconds, 0.001),
        wal_bytes=after.wal_bytes - before.wal_bytes,
        statements=after.statements - before.statements,
        statements_wal_bytes=after.statements_wal_bytes - before.statements_wal_bytes,
        buffers=after.buffers - before.buffers,
        sqs_requests=after.sqs_requests - before.sqs_requests,
    )
