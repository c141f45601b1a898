"""The ground of the fault runs: PostgreSQL and SQS, each behind a proxy, and processes on them.

One server of each kind serves all runs, one after the other; each run has a database, a queue, a
folder and processes of its own. What a run does at random follows from FAULT_SEED.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import psycopg
from flows.stage import Process, Stage
from moving_parts import POOLED, POSTGRES_BIN, environment, open_store
from pooler import pooler
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from starvation import Record, Stopwatch, recorded

from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.embedded.sqs import SqsServer
from async_jobs.models import BackoffPolicy, BackoffType, NewJob
from async_jobs.testing import TcpProxy

from . import audit

HERE = Path(__file__).parent
TESTS = HERE.parent
SEED = int(os.environ.get("FAULT_SEED", "1"))
LENGTH = float(os.environ.get("FAULT_LENGTH", "1"))
"""How many times longer than in CI a fault lasts, and how many times more jobs there are."""

SQS, TABLE = "mail", "report"
"""The use case whose tickets go through SQS, and the one that needs none."""
CAPACITY = 20
LEASE_SECONDS = 3.0
INTERVAL_SECONDS = 0.2
POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0
RECOVERY_SECONDS = LEASE_SECONDS + INTERVAL_SECONDS + 2.0
SETTINGS = {
    "ASYNC_JOBS_LEASE_DURATION_SECONDS": LEASE_SECONDS,
    "ASYNC_JOBS_DISPATCH_LEASE_SECONDS": LEASE_SECONDS,
    "ASYNC_JOBS_WORKER_VISIBILITY_TIMEOUT_SECONDS": LEASE_SECONDS,
    "ASYNC_JOBS_SCHEDULER_INTERVAL_SECONDS": INTERVAL_SECONDS,
    "ASYNC_JOBS_WORKER_POLL_INTERVAL_SECONDS": POLL_SECONDS,
    "ASYNC_JOBS_WORKER_LONG_POLL_SECONDS": 1,
    "ASYNC_JOBS_HEARTBEAT_INTERVAL_SECONDS": 1,
    "ASYNC_JOBS_WORKER_GRACE_SECONDS": GRACE_SECONDS,
    "ASYNC_JOBS_WORKER_CONCURRENCY": CAPACITY,
    "ASYNC_JOBS_MAIL_MAX_CONCURRENT": CAPACITY,
    "ASYNC_JOBS_REPORT_MAX_CONCURRENT": CAPACITY,
    "ASYNC_JOBS_MAIL_BREAKER": "off",
    "ASYNC_JOBS_REPORT_BREAKER": "off",
    "ASYNC_JOBS_MAIL_OVERLOAD": "accept",
    "ASYNC_JOBS_REPORT_OVERLOAD": "accept",
    # However slow the machine, no job is late: late ones have a lane of their own.
    "ASYNC_JOBS_MAIL_DEFAULT_DELAY_TOLERANCE_SECONDS": 3_600,
    "ASYNC_JOBS_REPORT_DEFAULT_DELAY_TOLERANCE_SECONDS": 3_600,
    "ASYNC_JOBS_RETENTION_SECONDS": 0,
}
TEMPLATE = "audited"
SESSIONS = 40
"""Of a pooler, if there is one."""
SOON = BackoffPolicy(type=BackoffType.CONSTANT, base_delay_seconds=0.1, jitter=0.0)


@dataclass(frozen=True, slots=True)
class Ground:
    """Both servers, the proxies before them, and the port at which processes reach PostgreSQL."""

    postgres: PostgresServer
    sqs: SqsServer
    postgres_proxy: TcpProxy
    sqs_proxy: TcpProxy
    postgres_port: int
    record: Record
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def heal(self) -> None:
        """Nothing misbehaves any more."""
        self.postgres_proxy.heal()
        self.sqs_proxy.heal()
        self.sqs.faults.clear()

    def database(self) -> str:
        """The connection string of a fresh audited database, past the proxy."""
        return _database(self.postgres, f"fault_{next(self.numbers)}", template=TEMPLATE)

    def queue_url(self) -> str:
        """The URL of a fresh queue, through the proxy."""
        url = self.sqs.create_queue(f"{SQS}-{next(self.numbers)}")
        return url.replace(f":{self.sqs.port}", f":{self.sqs_proxy.port}")


def _database(server: PostgresServer, name: str, *, template: str) -> str:
    with psycopg.connect(server.dsn, autocommit=True) as control:
        control.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
    return make_conninfo(server.dsn, dbname=name)


@contextmanager
def ground() -> Iterator[Ground]:
    """Start everything, and stop it at the end."""
    options = {"synchronous_commit": "on", **audit.SERVER_OPTIONS}
    with (
        PostgresServer(settings="fast", options=options, bin_dir=POSTGRES_BIN) as postgres,
        SqsServer.in_thread(faults=True, seed=SEED) as sqs,
        TcpProxy.in_thread(postgres.port) as postgres_proxy,
        TcpProxy.in_thread(sqs.port) as sqs_proxy,
        recorded() as record,
    ):
        with psycopg.connect(_database(postgres, TEMPLATE, template="template1")) as conn:
            conn.execute(get_ddl())
            audit.install(conn)
        with door_to(postgres, postgres_proxy) as port:
            yield Ground(postgres, sqs, postgres_proxy, sqs_proxy, port, record)


@contextmanager
def door_to(postgres: PostgresServer, proxy: TcpProxy) -> Iterator[int]:
    """The port of the proxy, or of a pooler whose sessions go through it."""
    if not POOLED:
        yield proxy.port
        return
    dsn = make_conninfo(postgres.dsn, host="127.0.0.1", port=proxy.port)
    with (
        TemporaryDirectory(prefix="pgbouncer-") as folder,
        pooler(dsn, Path(folder), sessions=SESSIONS) as pooled,
    ):
        yield int(conninfo_to_dict(pooled)["port"] or 0)


@dataclass
class Run(Stage):
    """One fault run: `dsn` is past the proxy, the processes go through it."""

    ground: Ground = field(kw_only=True)
    told: audit.Told = field(default_factory=audit.Told)
    outages: list[audit.Outage] = field(default_factory=list)
    quotas: Mapping[str, int] = field(default_factory=dict)
    killed_at: dict[int, float] = field(default_factory=dict)
    capacity: int = CAPACITY

    @property
    def proxied_dsn(self) -> str:
        return make_conninfo(self.dsn, port=self.ground.postgres_port)

    @property
    def env(self) -> dict[str, str]:
        return environment(
            ASYNC_JOBS_DB_DSN=self.proxied_dsn,
            ASYNC_JOBS_SQS_QUEUE_MAIL=str(self.queue_url),
            ASYNC_JOBS_HANDLERS_MODULE="fault_handlers",
            FAULT_RUNS=str(self.runs_path),
            PYTHONPATH=os.pathsep.join([str(HERE), str(TESTS), str(TESTS.parent)]),
            **{name: str(value) for name, value in {**SETTINGS, **self.settings}.items()},
        )

    @property
    def runs_path(self) -> Path:
        return self.folder / "runs"

    def worker(self, **env: str) -> Process:
        return self.start("worker", **env)

    def failing(self, role: str, failpoints: str, **env: str) -> Process:
        """Start a process that a failpoint stops or kills."""
        return self.start(role, ASYNC_JOBS_TESTING="on", ASYNC_JOBS_FAILPOINTS=failpoints, **env)

    async def started(self, *processes: Process) -> None:
        """Wait until these processes say that they work."""
        for one in processes or self.processes:
            await self.until(f"{one.name} works", lambda one=one: "ready:" in one.log)  # type: ignore[misc] # a default binds it

    async def put(
        self,
        jobs: int,
        *,
        type: str = "work",
        use_cases: Sequence[str] = (SQS, TABLE),
        max_attempts: int = 10,
        tenants: int = 3,
        in_seconds: float | None = None,
        **payload: object,
    ) -> list[UUID]:
        """Enqueue *jobs*, spread over use cases and tenants, and note the acknowledgement."""
        later = datetime.now(UTC) + timedelta(seconds=in_seconds) if in_seconds else None
        new = [
            NewJob(
                tenant_id=f"tenant-{number % tenants}",
                use_case=use_cases[number % len(use_cases)],
                type=type,
                payload=payload,
                max_attempts=max_attempts,
                run_at=later,
                backoff_policy=SOON,
            )
            for number in range(jobs)
        ]
        async with open_store(self.dsn) as store:
            stored = await self.service(store).enqueue_many(new)
        self.told.note("stored", [one.job_id for one in stored])
        return [one.job_id for one in stored]

    async def next_start(self) -> float:
        """How long a job of each use case now waits for its start; seconds."""
        watch = Stopwatch()
        jobs = await self.put(2)
        await self.until("the next jobs start", lambda: self.entered(jobs) >= 2)
        return watch.seconds

    def number(self, sql: str, *params: object) -> float:
        """The one value that *sql* gives."""
        return float(self.query(sql, *params)[0][0])

    def lines(self, event: str = "start") -> list[list[str]]:
        """What handlers have written about *event*."""
        text = self.runs_path.read_text() if self.runs_path.exists() else ""
        return [words for words in map(str.split, text.splitlines()) if words[4] == event]

    def entered(self, job_ids: Sequence[UUID]) -> int:
        """How often the handlers of these jobs were entered."""
        wanted = {str(job_id) for job_id in job_ids}
        return sum(words[0] in wanted for words in self.lines())

    async def running(self, jobs: int) -> None:
        """Wait until so many handlers were entered."""
        await self.until(f"{jobs} handlers ran", lambda: len(self.lines()) >= jobs)

    async def drained(self) -> None:
        """Wait until every job has finished."""
        left = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
        await self.until("every job has finished", lambda: not self.number(left), every_seconds=0.1)

    def kill(self, process: Process) -> None:
        """kill -9, and note when."""
        self.killed_at[process.popen.pid] = time.monotonic()
        process.kill()

    async def recovered(self) -> None:
        """Wait until every job that a kill cut off has started again."""
        await self.until("what was killed runs again", lambda: None not in self.recoveries())

    def recoveries(self) -> list[float | None]:
        """For each run cut off by a kill: how long after that its job started again, if it did."""
        ended = {tuple(words[:2]) for event in ("end", "raise") for words in self.lines(event)}
        starts = [(words[0], words[1], int(words[3]), float(words[5])) for words in self.lines()]
        cut = [one for one in starts if one[2] in self.killed_at and one[:2] not in ended]
        return [
            min(
                (
                    self.ground.record.between(self.killed_at[pid], at)
                    for again, later_seq, _, at in starts
                    if again == job and int(later_seq) > int(seq)
                ),
                default=None,
            )
            for job, seq, pid, _ in cut
        ]

    @contextmanager
    def outage(self, *, after_seconds: float = 6.0) -> Iterator[None]:
        """What waits in here, or a little later, does not count as slow."""
        began = datetime.now(UTC)
        yield
        ended = datetime.fromtimestamp(time.time() + after_seconds, UTC)
        self.outages.append((began, ended))

    @property
    def terms(self) -> audit.Terms:
        secret = str(conninfo_to_dict(self.dsn).get("password") or "")
        return audit.Terms(
            capacities={SQS: self.capacity, TABLE: self.capacity},
            quotas=self.quotas,
            interval_seconds=INTERVAL_SECONDS,
            gap_seconds=INTERVAL_SECONDS + POLL_SECONDS + 5,
            outages=self.outages,
            secrets=[secret] if secret else [],
            every=max(1, len(self.told.lines) // 2_000),
        )

    def verify(self, *, leaving_out: Sequence[str] = ()) -> dict[str, Any]:
        """Every invariant holds, no process died of an error; what happened, in numbers."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            found = audit.check(
                conn,
                self.terms,
                runs=self.runs_path,
                told=self.told,
                record=self.ground.record,
                leaving_out=leaving_out,
            )
            figures = audit.figures(conn, self.terms)
        assert not found, f"seed {SEED}\n{audit.shown(found)}\n{self.logs()}"
        for one in self.processes:
            assert "Traceback" not in one.log, f"seed {SEED}: {one.name}\n{one.log[-5_000:]}"
        return figures

    def ends_well(self) -> None:
        """All that still run obey SIGTERM, with exit code 0."""
        codes = self.stop_all()
        assert set(codes) <= {0}, self.logs()
