"""`python -m bench growth`: how the drain rate changes as the table, the tenants or time grow.

Every case is a database of its own, filled by SQL, from which one scheduler and one worker
drain the first jobs while the rest waits. A case is compared with its base in the same run:
the same jobs without what grew. Rounds are interleaved, so a machine that slows down slows
both. The last case keeps a worker's slots full of sleeping handlers and tells how full.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from statistics import median

import psycopg
from rich.console import Console

from bench.contestants import HERE, Contestant, read
from bench.measures import Figures
from bench.meter import Meter, cost
from bench.servers import Servers, running
from bench.stand import Stand
from bench.table import Table, show

MOST_SECONDS = 300.0
SLEEPERS = 1_000
SLEEP_SECONDS = 1.0
SLEEP_ROUNDS = 15

FILL = b"""
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due, status, attempts, started_at, finished_at)
SELECT uuidv7(), 't' || n %% %(tenants)s, name, 'noop', name, jsonb_build_object('i', n, 't', 0),
    at, tolerance, at + tolerance, NOT %(finished)s,
    CASE WHEN %(finished)s THEN 'succeeded' ELSE 'pending' END,
    CASE WHEN %(finished)s THEN 1 ELSE 0 END,
    CASE WHEN %(finished)s THEN at END, CASE WHEN %(finished)s THEN at END
FROM generate_series(0, %(jobs)s - 1) AS n,
    LATERAL (SELECT clock_timestamp() - make_interval(secs => %(age_seconds)s),
        make_interval(secs => 7200),
        (%(use_cases)s::text[])[1 + n %% cardinality(%(use_cases)s::text[])]
    ) AS one (at, tolerance, name)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A table and what is drained from it; `base` names the case that it is measured against."""

    name: str
    base: str = ""
    at_least: float = 0.0
    waiting: int = 20_000
    drained: int = 20_000
    late: bool = False
    finished: int = 0
    use_cases: int = 1
    tenants: int = 1
    snapshot_held: bool = False
    sleep_seconds: float = 0.0

    @property
    def use_case_names(self) -> list[str]:
        return [f"bench{number}" for number in range(self.use_cases)]


CASES = (
    Case(name="20,000 waiting"),
    Case(name="1 M waiting", base="20,000 waiting", at_least=0.95, waiting=1_000_000),
    Case(name="1 M waiting, all late", base="20,000 waiting", waiting=1_000_000, late=True),
    Case(name="1 M finished beside", base="20,000 waiting", at_least=0.95, finished=1_000_000),
    Case(name="80,000 jobs", waiting=80_000, drained=80_000),
    Case(
        name="80,000 jobs, a snapshot held",
        base="80,000 jobs",
        at_least=0.6,
        waiting=80_000,
        drained=80_000,
        snapshot_held=True,
    ),
    Case(name="2 use cases", use_cases=2),
    Case(name="8 use cases", base="2 use cases", at_least=0.9, use_cases=8),
    Case(name="1,000 tenants", base="20,000 waiting", at_least=0.9, tenants=1_000),
    Case(
        name="1,000 sleeping handlers",
        at_least=0.95,
        waiting=SLEEPERS * SLEEP_ROUNDS,
        drained=SLEEPERS * (SLEEP_ROUNDS - 1),
        sleep_seconds=SLEEP_SECONDS,
    ),
)
LARGE = (Case(name="10 M waiting", base="20,000 waiting", at_least=0.8, waiting=10_000_000),)


def run(names: Sequence[str], *, rounds: int, large: bool) -> int:
    """Measure the cases of these *names* (all if there are none) and print; 1 if one fell short."""
    cases = _chosen(names, (*CASES, *LARGE) if large else CASES)
    console = Console()
    ours = next(one for one in read(HERE) if one.name == "async-jobs-pg")
    lines: list[Figures] = []
    with running() as servers:
        for number in range(rounds):
            for case in cases if number % 2 == 0 else reversed(cases):
                console.print(f"round {number + 1} of {rounds}: {case.name} ...")
                lines.append(measure(ours, servers, case))
    table = summary(cases, lines)
    show(table, console)
    return int(any(row[-1] == "missed" for row in table.rows))


def _chosen(names: Sequence[str], known: Sequence[Case]) -> list[Case]:
    by_name = {case.name: case for case in known}
    wanted = set(names or by_name)
    if unknown := wanted - set(by_name):
        raise SystemExit(f"No such case: {', '.join(unknown)}. There are {', '.join(by_name)}.")
    wanted |= {by_name[name].base for name in wanted if by_name[name].base}
    return [case for case in known if case.name in wanted]


def measure(contestant: Contestant, servers: Servers, case: Case) -> Figures:
    """Drain one case."""
    settings: Mapping[str, str] = {
        **contestant.environment,
        "BENCH_USE_CASES": ",".join(case.use_case_names),
    }
    if case.sleep_seconds:
        slots = str(SLEEPERS)
        settings = {
            **settings,
            "BENCH_CONC": slots,
            "BENCH_CAP": slots,
            "BENCH_SLEEP": str(case.sleep_seconds),
        }
    with ExitStack() as stack:
        stand = stack.enter_context(Stand(replace(contestant, environment=settings), servers))
        dsn = servers.database_dsn(stand.database)
        with closing(psycopg.connect(dsn, autocommit=True)) as conn:
            _fill(conn, case)
        if case.snapshot_held:
            _hold_snapshot(stack.enter_context(closing(psycopg.connect(dsn))))
        return _drained(stand, case)


def _fill(conn: psycopg.Connection[tuple[object, ...]], case: Case) -> None:
    age_seconds = 3 * 3_600.0 if case.late else 0.0
    for jobs, finished in ((case.finished, True), (case.waiting, False)):
        conn.execute(
            FILL,
            {
                "jobs": jobs,
                "tenants": case.tenants,
                "use_cases": case.use_case_names,
                "finished": finished,
                "age_seconds": age_seconds,
            },
        )
    conn.execute("VACUUM (ANALYZE) jobs")
    conn.execute("CHECKPOINT")


def _hold_snapshot(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.execute("SELECT count(*) FROM pg_class")


def _drained(stand: Stand, case: Case) -> Figures:
    meter = Meter(stand)
    before = meter.read()
    stand.start()
    stand.wait_started(case.drained, time.monotonic() + MOST_SECONDS)
    after = meter.read()
    started = sorted(start[2] for start in stand.starts())[: case.drained]
    seconds = (started[-1] - started[0]) / 1e9
    figures: Figures = {
        "case": case.name,
        "rate": (len(started) - 1) / seconds,
        **cost(before, after).per_job(case.drained),
    }
    if case.sleep_seconds:
        # The last to start have only begun to sleep, so the time runs one sleep longer.
        busy_seconds = len(started) * case.sleep_seconds
        figures["busy"] = busy_seconds / (SLEEPERS * (seconds + case.sleep_seconds))
    return figures


def summary(cases: Sequence[Case], lines: Sequence[Figures]) -> Table:
    """Medians, each beside what it is compared with."""
    return Table(
        "Growth",
        ["case", "jobs/s", "PostgreSQL µs", "workers µs", "compared with", "ratio", "wanted", ""],
        list(_rows(cases, lines)),
    )


def _rows(cases: Sequence[Case], lines: Sequence[Figures]) -> Iterator[list[str]]:
    for case in cases:
        busy = _median(lines, case.name, "busy")
        rate = _median(lines, case.name, "rate")
        share = busy or (rate / _median(lines, case.base, "rate") if case.base else 0.0)
        verdict = ("met" if share >= case.at_least else "missed") if case.at_least else ""
        yield [
            case.name,
            f"{rate:,.0f}",
            f"{_median(lines, case.name, 'postgres_us'):,.0f}",
            f"{_median(lines, case.name, 'worker_us'):,.0f}",
            case.base or ("slots that were never empty" if busy else ""),
            f"{share:.2f}" if share else "",
            f"≥ {case.at_least}" if case.at_least else "",
            verdict,
        ]


def _median(lines: Sequence[Figures], case: str, key: str) -> float:
    values = [
        value
        for line in lines
        if line["case"] == case and isinstance(value := line.get(key), int | float)
    ]
    return median(values) if values else 0.0
