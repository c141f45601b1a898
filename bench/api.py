"""`python -m bench api`: how many requests a core of the API process answers.

A real API process (`async-jobs api`, uvicorn, one token) on a durable PostgreSQL; another process
asks over kept-alive connections on loopback, each again as soon as it has its answer. Beside it,
in turns, an API that stores nothing (`bench/bare_api.py`): what the front takes by itself.

Requests/s/core is requests by the CPU seconds of the API process. It does not depend on who else
uses the machine, but on how fast its cores are: compare the ratio to the bare API across machines.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console

from bench import processes
from bench.contestant import environment
from bench.contestants import HERE, read
from bench.servers import Servers, running
from bench.stand import COMMAND_SECONDS, STOP_SECONDS, Stand, StandError
from bench.table import Table, show

AT_LEAST = 1_500.0
"""Requests for one job that a core is to answer in a second, with many connections."""
WARM_UP = 50
OURS, BARE = "async-jobs", "bare FastAPI"
APIS = {OURS: ("async_jobs.cli.api", "--port", "0"), BARE: ("bench.bare_api",)}
_STATEMENTS = """
    SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
    JOIN pg_database ON pg_database.oid = dbid WHERE datname = %s
"""


@dataclass(frozen=True, slots=True)
class Case:
    """How it is asked: connections, requests, jobs in each (0: the endpoint for one job)."""

    name: str
    connections: int
    requests: int
    jobs: int = 0


CASES = (
    Case("one job, 1 connection", 1, 1_000),
    Case("one job, 16 connections", 16, 3_000),
    Case("100 jobs, 4 connections", 4, 200, 100),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one case cost one API."""

    api: str
    case: Case
    per_core: float
    """Requests in a second of the API process's CPU time."""
    rate: float
    p50_ms: float
    p99_ms: float
    statements: float
    """For one request; the looks of the process itself among them."""
    postgres_us: float


def run(console: Console, *, rounds: int, cases: Sequence[Case] = CASES) -> int:
    """Measure and print; 1 if a core answers too few requests."""
    found: list[Measured] = []
    ours = next(one for one in read(HERE) if one.name == "async-jobs-pg")
    with running() as servers, Stand(ours, servers) as stand:
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds} ...")
            for api in APIS if number % 2 == 0 else reversed(APIS):
                found += measure(api, stand, servers, cases)
    table = summary(found)
    show(table, console)
    return int(any("missed" in row for row in table.rows))


def measure(api: str, stand: Stand, servers: Servers, cases: Sequence[Case]) -> Iterator[Measured]:
    """Start the API, warm it up, and ask it in each way."""
    token = secrets.token_hex()
    with _serving(api, stand, token) as (url, pid):
        for case in cases:
            _ask(url, Case("", case.connections, WARM_UP, case.jobs), token)
            before = _counters(servers, stand, pid)
            told = _ask(url, case, token)
            after = _counters(servers, stand, pid)
            ours, postgres, statements = (b - a for a, b in zip(before, after, strict=True))
            yield Measured(
                api,
                case,
                per_core=case.requests / ours,
                rate=case.requests / told["seconds"],
                p50_ms=told["p50_ms"],
                p99_ms=told["p99_ms"],
                statements=statements / case.requests,
                postgres_us=1e6 * postgres / case.requests,
            )


@contextmanager
def _serving(api: str, stand: Stand, token: str) -> Iterator[tuple[str, int]]:
    """The API as a process of its own: its URL and process id."""
    module, *words = APIS[api]
    env = environment(stand.dsn) | {
        "ASYNC_JOBS_ENQUEUE_AUTH_TOKEN": token,
        "ASYNC_JOBS_LOG_LEVEL": "INFO",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        env=env, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"ready: (http://\S+)", said)):
            line = process.stderr.readline()
            if not line:
                raise StandError(f"{api} ended: {said}")
            said += line
        yield found[1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _ask(url: str, case: Case, token: str) -> dict[str, Any]:
    counts = (case.connections, case.requests, case.jobs)
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", url, *map(str, counts)],
        env=os.environ | {"BENCH_TOKEN": token, "PYTHONPATH": str(HERE.parent)},
        capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StandError(f"asking failed: {done.stderr}")
    told = dict(json.loads(done.stdout))
    if told["refused"]:
        told_why = f"{told['refused']} of {case.requests} requests were refused"
        raise StandError(f"{told_why}: {told['refusal']}")
    return told


def _counters(servers: Servers, stand: Stand, pid: int) -> tuple[float, float, int]:
    row = servers.control.execute(_STATEMENTS, (stand.database,)).fetchone()
    return (
        processes.cpu_seconds(pid),
        processes.cpu_seconds(servers.postgres_pid),
        row[0] if row else 0,
    )


def summary(found: Sequence[Measured]) -> Table:
    """A row for each case and API; medians of the rounds."""
    cases = dict.fromkeys(one.case for one in found)
    return Table(
        "The API",
        ["request", "API", "requests/s/core", "jobs/s/core", "of bare", "requests/s", "p50 ms",
         "p99 ms", "statements", "PostgreSQL µs", f"≥ {AT_LEAST:,.0f}"],
        [row for case in cases for row in _rows([one for one in found if one.case == case])],
    )  # fmt: skip


def _rows(found: Sequence[Measured]) -> Iterator[list[str]]:
    """Of one case."""
    case = found[0].case
    bare = [one.per_core for one in found if one.api == BARE]
    for api in dict.fromkeys(one.api for one in found):
        same = [one for one in found if one.api == api]
        per_core = median(one.per_core for one in same)
        judged = api == OURS and not case.jobs and case.connections > 1
        yield [
            case.name,
            api,
            f"{per_core:,.0f}",
            f"{per_core * (case.jobs or 1):,.0f}",
            f"{per_core / median(bare):.2f}" if bare else "",
            f"{median(one.rate for one in same):,.0f}",
            f"{median(one.p50_ms for one in same):.1f}",
            f"{median(one.p99_ms for one in same):.1f}",
            f"{median(one.statements for one in same):.3f}",
            f"{median(one.postgres_us for one in same):,.0f}",
            ("met" if per_core >= AT_LEAST else "missed") if judged else "",
        ]
