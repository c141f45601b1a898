"""What a job costs a worker that does nothing else, counted so that no clock matters."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType

from moving_parts import started_job, until

from async_jobs.core.slo import SloRecord
from async_jobs.registry import JobRegistry
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.logs import log_event
from async_jobs.telemetry.slo import SloListener
from async_jobs.worker.worker import Worker

from .conftest import FakeDesk, FakeKeeper, FakeReceiver

JOBS = 300
MOST_CALLS = 95
"""Python functions entered for one job (86 when this was written): what a new call on the way of
every job adds to."""


async def no_enqueue(new: object) -> None:
    raise AssertionError("nobody enqueues here")


async def test_a_job_costs_few_function_calls(
    desk: FakeDesk, keeper: FakeKeeper, receiver: FakeReceiver, registry: JobRegistry
) -> None:
    @registry.handler("nothing")
    async def nothing(payload: dict[str, object]) -> None:
        """Return at once."""

    bus = Bus(log_event, SloListener(SloRecord()).hear)
    worker = Worker(
        "worker-1",
        desk,
        keeper,
        [receiver],
        registry,
        concurrency=JOBS,
        lease_seconds=300,
        heartbeat_interval_seconds=60,
        enqueuer=no_enqueue,  # type: ignore[arg-type] # never called
        bus=bus,
    )
    jobs = [started_job(type="nothing") for _ in range(JOBS)]
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    running = asyncio.ensure_future(worker.run())
    sys.setprofile(count)
    try:
        receiver.put(*jobs)
        await until(lambda: len(desk.outcomes) == JOBS)
    finally:
        sys.setprofile(None)
        worker.stop(grace_seconds=5)
        await running

    assert calls / JOBS <= MOST_CALLS
