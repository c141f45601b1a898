"""Capacity is never exceeded at any commit, by four schedulers that are killed and stopped.

Not sampled: `audit.py` counts inside the commits. Both transports take part, each with a use
case of its own, and what is killed or stopped, and when, follows from the seed.
"""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from . import audit
from .conftest import LONG, SECONDS, SEED, MakeTroupe, tell
from .storm import Storm
from .troupe import Troupe

CAPACITY = 10
USE_CASES = ("mail", "report")
LEAST_USE = 0.9
"""Measured on two quiet cores: 0.97; the rest is for a busy machine."""
QUICK_RECOVERY = {
    "ASYNC_JOBS_SCHEDULER_INTERVAL_SECONDS": 0.5,
    "ASYNC_JOBS_WORKER_POLL_INTERVAL_SECONDS": 0.2,
    "ASYNC_JOBS_WORKER_LONG_POLL_SECONDS": 1,
    "ASYNC_JOBS_LEASE_DURATION_SECONDS": 2,
    "ASYNC_JOBS_DISPATCH_LEASE_SECONDS": 1,
    "ASYNC_JOBS_HEARTBEAT_INTERVAL_SECONDS": 0.4,
    "ASYNC_JOBS_WORKER_GRACE_SECONDS": 2,
    "ASYNC_JOBS_WORKER_CONCURRENCY": 20,
}

pytestmark = pytest.mark.slow


def audited(make_troupe: MakeTroupe, **settings: float) -> Troupe:
    capacities = {f"ASYNC_JOBS_{name.upper()}_MAX_CONCURRENT": CAPACITY for name in USE_CASES}
    troupe = make_troupe(sqs=USE_CASES[:1], **capacities, **settings)
    with troupe.connect() as conn:
        audit.install(conn)
    return troupe


def findings(troupe: Troupe) -> list[audit.Finding]:
    with troupe.connect() as conn:
        return audit.findings(conn)


async def test_no_commit_exceeds_the_capacity_whatever_is_killed_or_stopped(
    make_troupe: MakeTroupe, capsys: pytest.CaptureFixture[str]
) -> None:
    troupe = audited(make_troupe, **QUICK_RECOVERY)
    for use_case in USE_CASES:
        troupe.fill(use_case, int(400 * SECONDS), seconds=0.05)
    schedulers = [troupe.scheduler() for _ in range(4)]
    workers = [troupe.worker() for _ in range(2)]
    await troupe.started([*schedulers, *workers])
    storm = Storm(troupe, Random(SEED))

    await storm.rage(SECONDS, longest_stop_seconds=3.5)

    found = findings(troupe)
    tell(capsys, f"seed {SEED}: {dict(storm.done)}, {found}")
    assert [one.use_case for one in found] == list(USE_CASES)
    # It was full, and never more than that.
    assert [one.most_held for one in found] == [CAPACITY, CAPACITY], troupe.logs()
    finished = "SELECT count(*) FROM jobs WHERE use_case = %s AND finished_at IS NOT NULL"
    for use_case in USE_CASES:
        before = troupe.number(finished, use_case)
        await troupe.until(
            f"jobs of {use_case} finish afterwards",
            lambda name=use_case, past=before: troupe.number(finished, name) > past,  # type: ignore[misc] # defaults bind them
        )


async def test_the_audit_finds_a_scheduler_that_counts_before_it_has_the_turn(
    make_troupe: MakeTroupe,
) -> None:
    troupe = audited(make_troupe, **QUICK_RECOVERY)
    # Of the queue: jobs of the table would be claimed, and hardly leased.
    troupe.fill("mail", 5_000, seconds=0.05)
    for _ in range(4):
        troupe.script("hasty_scheduler")
    troupe.worker()

    await troupe.until(
        "a commit exceeds the capacity",
        lambda: any(one.most_held > CAPACITY for one in findings(troupe)),
        every_seconds=0.2,
    )


@LONG
async def test_under_a_backlog_the_capacity_is_used(
    make_troupe: MakeTroupe, capsys: pytest.CaptureFixture[str]
) -> None:
    troupe = audited(make_troupe, ASYNC_JOBS_WORKER_CONCURRENCY=20)
    for use_case in USE_CASES:
        troupe.fill(use_case, int(60 * SECONDS), seconds=0.5)
    schedulers = [troupe.scheduler() for _ in range(4)]
    workers = [troupe.worker() for _ in range(2)]
    await troupe.started([*schedulers, *workers])
    await troupe.until("both are full", lambda: len(held(troupe)) == 2)

    use = await mean_use(troupe, seconds=SECONDS)

    tell(capsys, f"mean use of {CAPACITY} slots by jobs of 0.5 s: {use}")
    assert min(use.values()) >= LEAST_USE
    assert [one.most_held for one in findings(troupe)] == [CAPACITY, CAPACITY]


def held(troupe: Troupe) -> dict[str, int]:
    sql = "SELECT use_case, count(*) FROM jobs WHERE leased_at IS NOT NULL GROUP BY use_case"
    return dict(troupe.query(sql))


async def mean_use(troupe: Troupe, *, seconds: float) -> dict[str, float]:
    """The mean share of the capacity that was held, by use case."""
    sums = dict.fromkeys(USE_CASES, 0)
    samples, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        for use_case, count in held(troupe).items():
            sums[use_case] += count
        samples += 1
        await asyncio.sleep(0.02)
    return {name: round(total / samples / CAPACITY, 3) for name, total in sums.items()}
