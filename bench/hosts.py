"""`python -m bench hosts`: several machines against one PostgreSQL, as network namespaces.

Each worker and each scheduler is a host of its own: a network namespace with its own address,
joined to the servers by a bridge, so that nothing is shared but the network. Handlers sleep, as
real ones wait for others, and every worker host has as many slots as they need for its share:
the ideal is a straight line. CPU and statements per job tell what the real machines would need.

Needs root and Debian's `iproute2`. Everything it makes is removed at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from rich.console import Console

from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from bench import processes
from bench.contestants import HERE
from bench.servers import POSTGRES_OPTIONS, sqs_server
from bench.stand import BOOT_MOST_SECONDS, RECORD_BYTES, StandError
from bench.table import Table, show

NET = "10.253.77"
SERVERS = f"{NET}.1"
SLOTS = 100
SLEEP_SECONDS = 0.1
SECONDS = 8
BOOT_SECONDS = 4.0
SHAPES = ((1, 1), (2, 2), (2, 4), (3, 8))
TRANSPORTS = ("postgres", "sqs")
_STATEMENTS = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements"
_FILL = """
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due)
SELECT uuidv7(), 't' || n %% 50, 'bench', 'noop', 'bench', jsonb_build_object('i', n, 't', 0),
    at, interval '2 hours', at + interval '2 hours', true
FROM generate_series(1, %(jobs)s) AS n, (SELECT clock_timestamp()) AS one (at)
"""


@dataclass(frozen=True, slots=True)
class Reached:
    """What so many hosts did in a time without start and end."""

    transport: str
    schedulers: int
    workers: int
    rate: float
    statements: float
    postgres_us: float
    scheduler_us: float
    worker_us: float

    @property
    def of_ideal(self) -> float:
        return self.rate / (self.workers * SLOTS / SLEEP_SECONDS)


@contextmanager
def hosts(names: Sequence[str]) -> Iterator[None]:
    """Network namespaces of these *names*, on one bridge with the servers' address."""
    with ExitStack() as stack:
        _ip("link", "add", "ajbridge", "type", "bridge")
        stack.callback(_ip, "link", "del", "ajbridge")
        _ip("addr", "add", f"{SERVERS}/24", "dev", "ajbridge")
        _ip("link", "set", "ajbridge", "up")
        for number, name in enumerate(names, start=10):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            here, there = f"ajv{number}", f"ajp{number}"
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            _ip("link", "set", here, "master", "ajbridge", "up")
            _ip("-n", name, "addr", "add", f"{NET}.{number}/24", "dev", there)
            _ip("-n", name, "link", "set", there, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server that the hosts reach over the bridge, with the password that is asked of them."""
    options = POSTGRES_OPTIONS | {"listen_addresses": f"127.0.0.1,{SERVERS}"}
    with PostgresServer(options=options) as server:
        with (server.data_dir / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NET}.0/24 scram-sha-256\n")
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("SELECT pg_reload_conf()")
        yield server


def run(console: Console, *, shapes: Sequence[tuple[int, int]] = SHAPES) -> int:
    """Measure and print; 2 if this machine cannot make hosts."""
    if os.geteuid() or not shutil.which("ip"):
        console.print("This needs root and the command `ip` (Debian's package iproute2).")
        return 2
    found = []
    names = [f"aj{kind}{number}" for kind in "sw" for number in range(max(map(max, shapes)))]
    with hosts(names), postgres() as server:
        for transport in TRANSPORTS:
            for schedulers, workers in shapes:
                console.print(f"{transport}: {schedulers} schedulers, {workers} workers ...")
                found.append(_measure(server, transport, schedulers, workers))
    show(_table(found), console)
    return 0


def _measure(server: PostgresServer, transport: str, schedulers: int, workers: int) -> Reached:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        settings = _settings(server, folder, workers)
        if transport == "sqs":
            url, _ = stack.enter_context(sqs_server(SERVERS, "bench"))
            settings |= {
                "BENCH_TRANSPORT": "sqs",
                "BENCH_SQS": url,
                "BENCH_QURL": f"{url}/000000000000/bench",
            }
        conn = stack.enter_context(psycopg.connect(server.dsn, autocommit=True))
        _fill(conn, int(workers * SLOTS / SLEEP_SECONDS * (SECONDS + 3 * BOOT_SECONDS)))
        commands = [("ajs", number, "scheduler") for number in range(schedulers)]
        commands += [("ajw", number, "work") for number in range(workers)]
        pids = []
        for host, number, role in commands:
            pids.append(stack.enter_context(_process(f"{host}{number}", role, settings)).pid)
        return _counted(conn, server, Path(folder), pids, (transport, schedulers, workers))


def _settings(server: PostgresServer, folder: str, workers: int) -> dict[str, str]:
    address = urlsplit(server.dsn)
    return {
        "BENCH_DSN": server.dsn.replace(f"@{address.hostname}:", f"@{SERVERS}:"),
        "BENCH_CONC": str(SLOTS),
        "BENCH_CAP": str(SLOTS * workers),
        "BENCH_SLEEP": str(SLEEP_SECONDS),
        "BENCH_REC": f"{folder}/record",
    }


def _fill(conn: psycopg.Connection[Any], jobs: int) -> None:
    conn.execute("DROP SCHEMA public CASCADE")
    conn.execute("CREATE SCHEMA public")
    conn.execute("CREATE EXTENSION pg_stat_statements")
    conn.execute(get_ddl().encode())
    conn.execute(_FILL, {"jobs": jobs})
    conn.execute("VACUUM (ANALYZE) jobs")


@contextmanager
def _process(host: str, role: str, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = ["ip", "netns", "exec", host, sys.executable, str(HERE / "contestant.py"), role]
    process = subprocess.Popen(command, env=os.environ | settings, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _counted(
    conn: psycopg.Connection[Any],
    server: PostgresServer,
    folder: Path,
    pids: Sequence[int],
    shape: tuple[str, int, int],
) -> Reached:
    """What happens in the middle of the work."""

    def look() -> tuple[float, int, int, float, dict[str, float]]:
        row = conn.execute(_STATEMENTS).fetchone()
        starts = sum(file.stat().st_size for file in folder.glob("record.*")) // RECORD_BYTES
        return (
            time.monotonic(),
            starts,
            row[0] if row else 0,
            processes.cpu_seconds(server.pid),
            processes.cpu_by_role(pids),
        )

    deadline = time.monotonic() + BOOT_MOST_SECONDS
    while len(list(folder.glob("record.*"))) < shape[2]:
        if time.monotonic() > deadline:
            raise StandError("some worker has started no job within a minute")
        time.sleep(0.1)
    time.sleep(BOOT_SECONDS)
    began = look()
    time.sleep(SECONDS)
    ended = look()
    jobs = max(1, ended[1] - began[1])

    def spent(role: str) -> float:
        return (ended[4].get(role, 0.0) - began[4].get(role, 0.0)) / jobs * 1e6

    return Reached(
        *shape,
        rate=jobs / (ended[0] - began[0]),
        statements=(ended[2] - began[2]) / jobs,
        postgres_us=(ended[3] - began[3]) / jobs * 1e6,
        scheduler_us=spent("scheduler"),
        worker_us=spent("worker"),
    )


def _table(found: Sequence[Reached]) -> Table:
    titles = ["transport", "schedulers", "workers", "jobs/s", "of the ideal", "statements"]
    titles += ["PostgreSQL µs", "schedulers µs", "workers µs"]
    rows = [
        [
            one.transport,
            str(one.schedulers),
            str(one.workers),
            f"{one.rate:,.0f}",
            f"{one.of_ideal:.2f}",
            f"{one.statements:.3f}",
            f"{one.postgres_us:,.0f}",
            f"{one.scheduler_us:,.0f}",
            f"{one.worker_us:,.0f}",
        ]
        for one in found
    ]
    return Table("Hosts", titles, rows)
