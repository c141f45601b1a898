"""The measurements, each on a fresh stand; every figure is one dictionary, one JSON line.

enqueue   jobs/s through the public enqueue call: 1 and 8 clients, and in bulk
drain     jobs/s of jobs that were enqueued before: from the first start to the moment
          when the contestant's table or queue says that nothing is left
latency   ms from just before the enqueue call to the start, at 10 and at 100 jobs/s
idle      what a worker costs that has nothing to do
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench import processes
from bench.contestants import Contestant
from bench.meter import Meter, cost
from bench.servers import Servers
from bench.stand import Stand

Figures = dict[str, str | float]

SETTLE_SECONDS = 0.3
AFTER_FIRST_SECONDS = 8.0
"""How long after the first job its counts are written and quick looks have ended."""
LATE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured. `jobs` bounds every count; a contestant may ask for fewer."""

    jobs: int = 10_000
    latency_seconds: float = 10.0
    idle_seconds: float = 20.0
    drain_seconds: float = 120.0
    rates: tuple[float, ...] = (10.0, 100.0)


def enqueue(contestant: Contestant, servers: Servers, sizes: Sizes) -> Iterator[Figures]:
    """Enqueue rates."""
    most = min(sizes.jobs, contestant.jobs)
    cases = [("1 client", 1, False, min(1_000, most)), ("8 clients", 8, False, min(3_000, most))]
    if contestant.bulk:
        cases.append(("bulk", 1, True, most))
    with Stand(contestant, servers) as stand:
        meter = Meter(stand)
        for case, clients, bulk, jobs in cases:
            before = meter.read()
            seconds = stand.enqueue(jobs, clients=clients, bulk=bulk)
            spent = cost(before, meter.read())
            yield {"case": case, "jobs": jobs, "rate": jobs / seconds, **spent.per_job(jobs)}


def drain(contestant: Contestant, servers: Servers, sizes: Sizes) -> Iterator[Figures]:
    """How fast one worker process finishes jobs that wait."""
    jobs = min(sizes.jobs, contestant.jobs)
    with Stand(contestant, servers) as stand:
        meter = Meter(stand)
        stand.enqueue(jobs, clients=1 if contestant.bulk else 8, bulk=True)
        stand.analyze()
        before = meter.read()
        stand.start()
        deadline = time.monotonic() + sizes.drain_seconds
        stand.wait_started(1, deadline)
        first = meter.read()  # booting is not part of a drain
        stand.wait_started(jobs, deadline)
        stand.wait_finished(deadline)
        ended_ns = time.time_ns()
        time.sleep(SETTLE_SECONDS)
        spent = cost(before, meter.read(), cpu_from=first)
        starts = stand.starts()
        took_seconds = (ended_ns - min(start[2] for start in starts)) / 1e9
        yield {
            "case": "1 worker",
            "jobs": jobs,
            "rate": jobs / took_seconds,
            "seconds": took_seconds,
            "repeated": len(starts) - len({start[0] for start in starts}),
            **spent.per_job(jobs),
        }


def latency(contestant: Contestant, servers: Servers, sizes: Sizes) -> Iterator[Figures]:
    """From the enqueue call to the start."""
    with Stand(contestant, servers) as stand:
        meter = Meter(stand)
        stand.start()
        stand.warm_up()
        for rate in sizes.rates:
            before = meter.read()
            numbers = stand.paced(rate, sizes.latency_seconds)
            waits = _waits_ms(stand, numbers)
            spent = cost(before, meter.read())
            yield {
                "case": f"{rate:g} jobs/s",
                "jobs": len(numbers),
                "missing": len(numbers) - len(waits),
                "p50_ms": percentile(waits, 0.5),
                "p95_ms": percentile(waits, 0.95),
                "p99_ms": percentile(waits, 0.99),
                **spent.per_job(len(numbers)),
            }


def _waits_ms(stand: Stand, numbers: range) -> list[float]:
    deadline = time.monotonic() + LATE_SECONDS
    while True:
        starts = [start for start in stand.starts() if start[0] in numbers]
        if len(starts) >= len(numbers) or time.monotonic() > deadline:
            return [(started - enqueued) / 1e6 for _, enqueued, started in starts]
        time.sleep(0.1)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that *share* of the values do not exceed; 0 of none."""
    in_order = sorted(values)
    return in_order[min(len(in_order) - 1, int(share * len(in_order)))] if in_order else 0.0


def idle(contestant: Contestant, servers: Servers, sizes: Sizes) -> Iterator[Figures]:
    """What it costs to wait for work, per minute."""
    with Stand(contestant, servers) as stand:
        meter = Meter(stand)
        stand.start()
        stand.warm_up()
        time.sleep(AFTER_FIRST_SECONDS)
        before = meter.read()
        time.sleep(sizes.idle_seconds)
        spent = cost(before, meter.read())
        megabytes = processes.resident_bytes(stand.pids) / 2**20
        yield {"case": "idle", "megabytes": round(megabytes), **spent.per_minute()}


Measure = Callable[[Contestant, Servers, Sizes], Iterator[Figures]]
MEASURES: dict[str, Measure] = {
    "enqueue": enqueue,
    "drain": drain,
    "latency": latency,
    "idle": idle,
}
