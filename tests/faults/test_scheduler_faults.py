"""Schedulers that die between two steps, many at once, with a wrong clock, or without workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from starvation import Stopwatch

from bench.processes import cpu_seconds

from .conftest import MakeRun
from .ground import (
    CAPACITY,
    HERE,
    INTERVAL_SECONDS,
    LEASE_SECONDS,
    LENGTH,
    SQS,
    Run,
)

pytestmark = pytest.mark.slow

_LEASES = "SELECT count(*) FROM audit_moves WHERE old_expires_at IS NULL AND expires_at IS NOT NULL"
MOST_CPU = 0.2


async def test_f15_three_schedulers_at_once(make_run: MakeRun) -> None:
    run = make_run()
    for _ in range(3):
        run.scheduler()
    run.worker(), run.worker()
    await run.started()
    await run.put(int(800 * LENGTH), seconds=0.02)
    await run.drained()

    figures = run.verify()

    assert run.number(_LEASES) <= 1.01 * figures["jobs"]
    assert figures["runs"] == figures["jobs"]
    run.ends_well()


@pytest.mark.parametrize("place", ["f16 scheduler.after_lease", "f17 scheduler.after_send"])
async def test_f16_f17_killed_around_a_send(make_run: MakeRun, place: str) -> None:
    run = make_run()
    run.worker()
    await run.started()
    waits: list[float] = []
    for number in range(int(2 * LENGTH)):
        jobs = await run.put(10, use_cases=[SQS])
        victim = run.failing("scheduler", f"{place.split()[1]}=kill@{1 + number % 3 // 2}")
        assert await asyncio.to_thread(victim.exit_code) == -signal.SIGKILL, victim.log
        watch = Stopwatch()
        heir = run.scheduler()
        await run.until("its jobs start", lambda jobs=jobs: run.entered(jobs) >= len(jobs))  # type: ignore[misc] # a default binds it
        waits.append(watch.seconds)
        run.kill(heir)
    run.scheduler()
    await run.drained()

    figures = run.verify()

    assert max(waits) <= LEASE_SECONDS + INTERVAL_SECONDS + 2
    assert (figures["runs"], figures["rescued"]) == (figures["jobs"], 0)
    assert run.number("SELECT max(attempts) FROM jobs") == 1


async def test_f19_clocks_that_step_and_run_fast(make_run: MakeRun) -> None:
    run = make_run()
    clock = run.file("clock")
    clock.write_text("3600 1.05")
    path = os.pathsep.join([str(HERE / "skewed"), run.env["PYTHONPATH"]])
    skewed = {"FAULT_CLOCK": str(clock), "PYTHONPATH": path}
    run.scheduler(**skewed), run.worker(**skewed)
    await run.started()
    for step in ("-3600 1.05", "3600 0.95", "0 1.0"):
        await run.put(60, seconds=0.05)
        await run.put(20, in_seconds=0.7)
        new = clock.with_suffix(".new")
        new.write_text(step)
        new.rename(clock)
        await run.drained()

    cpu = [cpu_seconds(one.popen.pid) for one in run.processes]
    began = time.monotonic()
    await asyncio.sleep(1.0)
    used = [
        (cpu_seconds(one.popen.pid) - before) / (time.monotonic() - began)
        for one, before in zip(run.processes, cpu, strict=True)
    ]
    figures = run.verify()
    assert (figures["runs"], figures["rescued"]) == (240, 0)
    assert max(used) <= MOST_CPU
    run.ends_well()


async def test_f21_no_worker_for_longer_than_the_lease(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler()
    await run.started()
    with run.outage():
        await run.put(int(100 * LENGTH), seconds=0.05, use_cases=[SQS])
        deepest = 0
        until = time.monotonic() + 2 * LEASE_SECONDS * min(LENGTH, 3)
        while time.monotonic() < until:
            deepest = max(deepest, depth(run))
            await asyncio.sleep(0.1)
        run.worker()
        await run.started()
    await run.drained()

    figures = run.verify()
    assert 0 < deepest <= 2 * CAPACITY
    assert (figures["succeeded"], figures["runs"]) == (figures["jobs"], figures["jobs"])
    assert run.number("SELECT max(attempts) FROM jobs") == 1


def depth(run: Run) -> int:
    """How many messages the queue holds."""
    counts = run.ground.sqs.messages(str(run.queue_url).rpartition("/")[2])
    return counts.visible + counts.in_flight
