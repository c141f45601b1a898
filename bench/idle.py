"""`python -m bench idle`: what a scheduler and a worker cost that have little or nothing to do.

start      seconds from the start of both processes to the first start of a job that waits,
           and the CPU time that they have used by then
idle       statements, CPU time, wake-ups, WAL and SQS requests a minute, and memory
trickle    statements and SQS requests of a job when one comes every second

All of it is seen from outside: /proc, pg_stat_statements, the position in the WAL, and the
requests that the SQS server counts. The processes have their default settings; a wake-up is a
voluntary context switch: a thread that went to sleep and was awakened. Shared pages count in
each process. WAL is that of the processes' statements; the server adds its own (a checkpoint,
autovacuum, 50 bytes every 15 seconds).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from rich.console import Console

from bench import processes
from bench.contestants import HERE, Contestant, read
from bench.measures import AFTER_FIRST_SECONDS, Figures
from bench.meter import Meter, cost
from bench.servers import Servers, running
from bench.stand import BOOT_MOST_SECONDS, Stand
from bench.table import Table, show

TRICKLE_JOBS = 20
TRICKLE_RATE = 1.0
TRICKLE_MOST_SECONDS = 60.0
AFTER_TRICKLE_SECONDS = 1.0
"""The quick looks that follow a job have ended."""
LIMITS = {
    "first start, s": 1.5,
    "statements/min": 60.0,
    "CPU s/min": 0.3,
    "WAL bytes/min": 2_048.0,
    "SQS requests/min": 3.0,
    "scheduler MB": 90.0,
    "worker MB": 90.0,
    "SQS requests/job at a trickle": 3.0,
}
"""The most that each figure may be."""


def run(console: Console, *, seconds: float, rounds: int, only: Sequence[str] = ()) -> int:
    """Measure both transports and print; 1 if a figure is above its limit."""
    ours = [one for one in read(HERE) if not only or one.name in only]
    found: dict[str, list[Figures]] = {one.name: [] for one in ours}
    with running() as servers:
        for number in range(rounds):
            for one in ours if number % 2 == 0 else reversed(ours):
                console.print(f"round {number + 1} of {rounds}: {one.name} ...")
                found[one.name].append(measure(one, servers, seconds))
    table = summary(found)
    show(table, console)
    return int(any("missed" in cell for row in table.rows for cell in row))


def measure(
    contestant: Contestant,
    servers: Servers,
    seconds: float,
    *,
    settle_seconds: float = AFTER_FIRST_SECONDS,
    trickle_jobs: int = TRICKLE_JOBS,
) -> Figures:
    """Start it, leave it alone for so many seconds, then send a trickle."""
    settings = {**contestant.environment, "BENCH_LONG_POLL": ""}
    with Stand(replace(contestant, environment=settings), servers) as stand:
        meter = Meter(stand)
        figures = _started(stand)
        time.sleep(settle_seconds)
        figures |= _left_alone(stand, meter, seconds)
        return figures | _trickled(stand, meter, trickle_jobs)


def _started(stand: Stand) -> Figures:
    stand.enqueue(1, clients=1, bulk=False)
    began_ns = time.time_ns()
    stand.start()
    deadline = time.monotonic() + BOOT_MOST_SECONDS
    stand.wait_until(lambda: bool(stand.starts()), deadline)
    spent = processes.cpu_by_role(stand.pids)
    return {
        "first start, s": (min(start[2] for start in stand.starts()) - began_ns) / 1e9,
        "CPU s until then": spent.get("scheduler", 0.0) + spent.get("worker", 0.0),
    }


def _left_alone(stand: Stand, meter: Meter, seconds: float) -> Figures:
    before, woken_before = meter.read(), processes.wakeups_by_role(stand.pids)
    time.sleep(seconds)
    after, woken_after = meter.read(), processes.wakeups_by_role(stand.pids)
    spent = cost(before, after)
    minutes = spent.seconds / 60
    figures: Figures = {
        "statements/min": spent.statements / minutes,
        "CPU s/min": sum(map(spent.by_role.__getitem__, _roles(spent.by_role))) / minutes,
        "PostgreSQL CPU s/min": spent.postgres_seconds / minutes,
        "WAL bytes/min": spent.statements_wal_bytes / minutes,
        "SQS requests/min": spent.sqs_requests / minutes,
    }
    megabytes = processes.resident_by_role(stand.pids)
    for role in _roles(spent.by_role):
        figures[f"{role} CPU s/min"] = spent.by_role[role] / minutes
        woken = woken_after[role] - woken_before[role]
        figures[f"{role} wake-ups/min"] = woken / minutes
        figures[f"{role} MB"] = megabytes[role] / 2**20
    return figures


def _roles(roles: dict[str, float]) -> list[str]:
    """The product's processes among them; the adapter that started them only waits."""
    return [role for role in ("scheduler", "worker") if role in roles]


def _trickled(stand: Stand, meter: Meter, jobs: int) -> Figures:
    before = meter.read()
    stand.paced(TRICKLE_RATE, jobs / TRICKLE_RATE)
    stand.wait_finished(time.monotonic() + TRICKLE_MOST_SECONDS)
    time.sleep(AFTER_TRICKLE_SECONDS)
    spent = cost(before, meter.read())
    jobs += 1  # the adapter warms up with one
    return {
        "statements/job at a trickle": spent.statements / jobs,
        "SQS requests/job at a trickle": spent.sqs_requests / jobs,
    }


def summary(found: dict[str, list[Figures]]) -> Table:
    """A row for each figure, a column for each transport; medians of the rounds."""
    names = list(dict.fromkeys(name for lines in found.values() for line in lines for name in line))
    return Table(
        "Start, idle, trickle",
        ["figure", "at most", *found],
        [list(_row(name, found)) for name in names],
    )


def _row(name: str, found: dict[str, list[Figures]]) -> Iterator[str]:
    limit = LIMITS.get(name)
    yield name
    yield f"{limit:,g}" if limit is not None else ""
    for lines in found.values():
        values = [value for line in lines if isinstance(value := line[name], int | float)]
        middle = median(values)
        digits = 0 if middle >= 100 else 2
        spread = f" ({min(values):,.{digits}f}..{max(values):,.{digits}f})"
        verdict = "" if limit is None else " met" if middle <= limit else " missed"
        yield f"{middle:,.{digits}f}{spread if len(values) > 1 else ''}{verdict}"
