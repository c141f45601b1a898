"""Workloads made from a seed, each with a question that it asks of a policy. Pure.

    steady      0.8 of the capacity, all day long          is anything late that need not be?
    noisy       two bursts of 8,000 short jobs             do quiet tenants notice?
    noisylong   two bursts of 600 long, patient jobs       do they keep the slots from others?
    hog         two bursts of 300 long jobs called urgent  the same, when they also come first
    cheat       one tenant calls 0.8 of the load urgent    what does it gain by that?
    surge       1.3 of the capacity, half of it patient    is the surge absorbed?
    overload    the same, and nobody is patient            who is late, and how many?
    mixed       one hump up to 1.4, large and small tenants   the fewest slots that suffice?
    poison      15 % of the jobs fail ten times            do fresh jobs suffer from retries?
    day         a million jobs from morning to night       how long does the simulation take?

Loads are parts of the capacity; run times are lognormal. The same seed gives the
same jobs, whatever the machine. `seconds` shortens a workload for tests: its bursts come at
the same part of the span.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple

from async_jobs.simulation.arrivals import Arrival, Workload


class Urgency(NamedTuple):
    """A kind of job: its tolerance, how many of them there are (a part of 1), its priority."""

    tolerance_seconds: float
    share: float
    priority: int


MIXED = (Urgency(5, 0.15, 2), Urgency(60, 0.35, 1), Urgency(600, 0.3, 0), Urgency(7200, 0.2, 0))
TIGHT = (Urgency(5, 0.2, 2), Urgency(30, 0.4, 1), Urgency(120, 0.4, 0))
HONEST = (Urgency(30, 0.5, 1), Urgency(120, 0.5, 0))

CAPACITY = 40
TENANTS = 20
SPREAD = 0.8
"""The sigma of the lognormal run times: a tenth of the jobs runs twice as long as the mean."""

_Jobs = Iterator[Arrival]


def workload(name: str, *, seed: int = 1, seconds: float | None = None) -> Workload:
    """The workload called *name*; KeyError if there is none."""
    make, usual_seconds, capacity, noisy = _WORKLOADS[name]
    span = usual_seconds if seconds is None else seconds
    return Workload(
        name=name,
        arrivals=sorted(make(Random(seed), span)),
        capacity=capacity,
        noisy=frozenset(noisy),
    )


def steady(random: Random, seconds: float) -> _Jobs:
    return _crowd(random, 0.8, 0.0, seconds, MIXED, tenants=range(TENANTS))


def noisy(random: Random, seconds: float) -> _Jobs:
    """19 quiet tenants at half load; the other drops two bursts with 30 s of tolerance."""
    yield from _crowd(random, 0.5, 0.0, seconds, MIXED)
    burst = (Urgency(30, 1, 1),)
    for begins in (seconds / 6, seconds / 2):
        for _ in range(round(8_000 * seconds / 1_800)):
            yield _job(random, begins + random.random(), 0, burst)


def noisylong(random: Random, seconds: float) -> _Jobs:
    """The bursts are 600 jobs of about 30 s with an hour of tolerance."""
    yield from _crowd(random, 0.5, 0.0, seconds, TIGHT)
    yield from _two_bursts(random, seconds, 600, 30.0, Urgency(3_600, 1, 0))


def hog(random: Random, seconds: float) -> _Jobs:
    """Quiet tenants use 0.3 at 5 to 120 s; the bursts are 300 jobs of about 60 s, urgent."""
    yield from _crowd(random, 0.3, 0.0, seconds, TIGHT)
    yield from _two_bursts(random, seconds, 300, 60.0, Urgency(1, 1, 0))


def cheat(random: Random, seconds: float) -> _Jobs:
    """Honest tenants offer 0.5 at 30 to 120 s; one offers 0.8 in jobs of 5 s, all urgent."""
    yield from _crowd(random, 0.5, 0.0, seconds, HONEST)
    urgent = (Urgency(1, 1, 2),)
    for at in _poisson(random, 0.8 * CAPACITY / 5.0, 0.0, seconds):
        yield _job(random, at, 0, urgent, mean_seconds=5.0)


def surge(random: Random, seconds: float) -> _Jobs:
    """1.3 for the first half, then 0.5: half of the jobs can wait ten minutes or more."""
    return _surge(random, seconds, MIXED)


def overload(random: Random, seconds: float) -> _Jobs:
    """The same, but nothing tolerates more than two minutes: somebody must be late."""
    return _surge(random, seconds, TIGHT)


def mixed(random: Random, seconds: float) -> _Jobs:
    """One smooth hump (mean 0.77, peak 1.4), 30 tenants of very unequal size."""
    sizes = _unequal(30)
    for at in _poisson(random, 1.4 * CAPACITY / 2.0, 0.0, seconds):
        if random.random() < 0.1 + 0.9 * math.sin(math.pi * at / seconds) ** 2:
            tenant = random.choices(range(30), cum_weights=sizes)[0]
            yield _job(random, at, tenant, MIXED, mean_seconds=2.0)


def poison(random: Random, seconds: float) -> _Jobs:
    """0.7 of fresh jobs with 60 s of tolerance; every seventh fails each of ten attempts."""
    minute = (Urgency(60, 1, 0),)
    for at in _poisson(random, 0.7 * 10, 0.0, seconds):
        fresh = _job(random, at, random.randrange(TENANTS), minute)
        fails = 10 if random.random() < 0.15 else 0
        yield fresh._replace(failing_attempts=fails, max_attempts=10)


def day(random: Random, seconds: float) -> _Jobs:
    """About a million jobs of 300 tenants, quiet at night, more than fits at noon."""
    sizes = _unequal(300)
    for at in _poisson(random, 1.6 * 1_000_000 / 86_400, 0.0, seconds):
        if random.random() < 0.25 + 0.75 * math.sin(math.pi * at / seconds) ** 2:
            tenant = random.choices(range(300), cum_weights=sizes)[0]
            yield _job(random, at, tenant, MIXED, mean_seconds=2.0)


_WORKLOADS: dict[str, tuple[Callable[[Random, float], _Jobs], float, int, Sequence[str]]] = {
    "steady": (steady, 1_800, CAPACITY, ()),
    "noisy": (noisy, 1_800, CAPACITY, ("tenant00",)),
    "noisylong": (noisylong, 3_600, CAPACITY, ("tenant00",)),
    "hog": (hog, 3_600, CAPACITY, ("tenant00",)),
    "cheat": (cheat, 1_800, CAPACITY, ("tenant00",)),
    "surge": (surge, 2_400, CAPACITY, ()),
    "overload": (overload, 2_400, CAPACITY, ()),
    "mixed": (mixed, 7_200, CAPACITY, ("tenant00",)),
    "poison": (poison, 3_600, 10, ()),
    "day": (day, 86_400, 32, ("tenant00",)),
}
NAMES = tuple(_WORKLOADS)


def _unequal(tenants: int) -> list[float]:
    """Sizes after Zipf, summed up: the second tenant has half of the first one's jobs."""
    return list(accumulate(1 / (number + 1) for number in range(tenants)))


def _surge(random: Random, seconds: float, urgencies: Sequence[Urgency]) -> _Jobs:
    half, tenants = seconds / 2, range(TENANTS)
    yield from _crowd(random, 1.3, 0.0, half, urgencies, tenants=tenants)
    yield from _crowd(random, 0.5, half, seconds, urgencies, tenants=tenants)


def _crowd(
    random: Random,
    load: float,
    begins: float,
    ends: float,
    urgencies: Sequence[Urgency],
    *,
    tenants: Sequence[int] = range(1, TENANTS),
) -> _Jobs:
    """Tenants of one size that offer *load* together, in jobs of a second."""
    for tenant in tenants:
        for at in _poisson(random, load * CAPACITY / len(tenants), begins, ends):
            yield _job(random, at, tenant, urgencies)


def _two_bursts(
    random: Random, seconds: float, jobs: int, mean_seconds: float, urgency: Urgency
) -> _Jobs:
    for begins in (seconds / 12, seconds / 2):
        for _ in range(round(jobs * seconds / 3_600)):
            yield _job(random, begins + random.random(), 0, (urgency,), mean_seconds=mean_seconds)


def _poisson(random: Random, per_second: float, begins: float, ends: float) -> Iterator[float]:
    at = begins + random.expovariate(per_second)
    while at < ends:
        yield at
        at += random.expovariate(per_second)


def _job(
    random: Random,
    at: float,
    tenant: int,
    urgencies: Sequence[Urgency],
    *,
    mean_seconds: float = 1.0,
) -> Arrival:
    urgency = random.choices(urgencies, [each.share for each in urgencies])[0]
    mu = math.log(mean_seconds) - SPREAD**2 / 2
    return Arrival(
        run_at=at,
        tenant_id=f"tenant{tenant:02}",
        type="job",
        run_seconds=random.lognormvariate(mu, SPREAD),
        delay_tolerance_seconds=urgency.tolerance_seconds,
        priority=urgency.priority,
    )
