"""The worker as a whole: how it begins attempts and keeps their leases."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

import pytest
from moving_parts import Events, started_job, until

from async_jobs.errors import StoreUnavailable
from async_jobs.models import JobContext, JobStatus, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.telemetry.events import (
    JobStarted,
    JobSucceeded,
    LeaseLost,
    LoopFailed,
)

from .conftest import FakeDesk, FakeKeeper, FakeReceiver, Handler, MakeWorker

pytestmark = pytest.mark.usefixtures("short_last_words")


async def test_a_job_runs_and_its_outcome_is_recorded(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    handler: Handler,
    desk: FakeDesk,
    events: Events,
) -> None:
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    job = started_job()
    receiver.put(job)
    handler.let_go.set()

    await until(lambda: events.of(JobSucceeded))

    worker.stop(grace_seconds=5)
    await running
    assert desk.outcomes[job.id].status == JobStatus.SUCCEEDED
    assert [event.job_id for event in events.of(JobStarted)] == [job.id]
    assert worker.running == 0


async def test_never_more_attempts_run_than_the_concurrency_whatever_the_queues(
    make_worker: MakeWorker, receiver: FakeReceiver, handler: Handler, desk: FakeDesk
) -> None:
    other = FakeReceiver()
    worker = make_worker(other, concurrency=3)
    running = asyncio.ensure_future(worker.run())
    receiver.put(*[started_job() for _ in range(6)])
    other.put(*[started_job() for _ in range(6)])
    await until(lambda: handler.running == 3)
    handler.let_go.set()

    await until(lambda: len(desk.outcomes) == 12)

    worker.stop(grace_seconds=5)
    await running
    assert handler.most == 3


async def test_a_failing_queue_does_not_stop_the_others(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    handler: Handler,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(slots: int) -> None:
        raise StoreUnavailable

    broken = FakeReceiver()
    monkeypatch.setattr(broken, "wait", away)
    worker = make_worker(broken)
    running = asyncio.ensure_future(worker.run())
    await until(lambda: events.of(LoopFailed))
    handler.let_go.set()
    receiver.put(started_job())

    await until(lambda: events.of(JobSucceeded))

    worker.stop(grace_seconds=5)
    await running


async def test_leases_are_renewed_until_the_last_outcome_is_written(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    handler: Handler,
    keeper: FakeKeeper,
    desk: FakeDesk,
) -> None:
    desk.gate.clear()
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    job = started_job()
    receiver.put(job)
    handler.let_go.set()
    await until(lambda: desk.tries)
    beats = len(keeper.beats)

    worker.stop(grace_seconds=3_600)
    await until(lambda: len(keeper.beats) > beats + 2)

    assert keeper.beats[-1] == {job.id: 1}
    desk.gate.set()
    await asyncio.wait_for(running, 20)
    assert keeper.closed


async def test_a_beat_about_an_old_lease_does_not_interrupt_the_new_attempt(
    make_worker: MakeWorker, receiver: FakeReceiver, handler: Handler, desk: FakeDesk
) -> None:
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    job = started_job(lease_seq=2)
    receiver.put(job)
    await until(lambda: handler.running)

    worker._interrupt(job.id, 1, None)
    await asyncio.sleep(0)
    handler.let_go.set()
    await until(lambda: desk.outcomes)

    assert desk.outcomes[job.id].status == JobStatus.SUCCEEDED
    worker.stop(grace_seconds=5)
    await running


async def test_two_attempts_of_one_job_in_one_worker_do_not_get_mixed_up(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    registry: JobRegistry,
    desk: FakeDesk,
    keeper: FakeKeeper,
) -> None:
    """The first one lost its lease and does not care; the second one is renewed to its end."""
    stubborn = Handler(stubborn=True)
    registry.handler("send")(stubborn)
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    first = started_job(lease_seq=1)
    receiver.put(first)
    await until(lambda: stubborn.running == 1)
    receiver.put(started_job(id=first.id, lease_seq=2, attempts=2))
    await until(lambda: stubborn.running == 2)
    assert worker.running == 2

    worker._interrupt(first.id, 1, None)
    await until(lambda: keeper.beats and keeper.beats[-1] == {first.id: 2})
    stubborn.let_go.set()
    await until(lambda: desk.outcomes)

    worker.stop(grace_seconds=5)
    await running
    assert [job.lease_seq for batch in desk.batches for job in batch] == [2]


async def test_a_job_whose_start_came_back_after_its_lease_does_not_run(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    handler: Handler,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A blocked loop can keep an answer waiting for longer than a lease."""
    start = receiver.start

    async def blocked(slots: int) -> list[StartedJob]:
        jobs = await start(slots)
        if jobs:
            time.sleep(0.06)  # noqa: ASYNC251 # this is the fault
        return jobs

    monkeypatch.setattr(receiver, "start", blocked)
    worker = make_worker(lease_seconds=0.05)
    running = asyncio.ensure_future(worker.run())
    receiver.put(started_job())

    await until(lambda: events.of(LeaseLost))

    worker.stop(grace_seconds=5)
    await running
    assert handler.most == 0


async def test_a_job_whose_lease_ran_out_between_its_start_and_its_turn_does_not_run(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    registry: JobRegistry,
    keeper: FakeKeeper,
    events: Events,
) -> None:
    """A process can be stopped anywhere, and its loop blocked by the attempt before."""
    ran: list[UUID] = []

    @registry.handler("send")
    async def send(ctx: JobContext, payload: dict[str, Any]) -> None:
        ran.append(ctx.job_id)
        time.sleep(0.06)  # noqa: ASYNC251 # this is the fault

    keeper.away = True
    worker = make_worker(lease_seconds=0.05)
    running = asyncio.ensure_future(worker.run())
    first, second = started_job(), started_job()
    receiver.put(first)
    receiver.put(second)

    await until(lambda: events.of(LeaseLost))

    worker.stop(grace_seconds=5)
    await running
    assert ran == [first.id]


async def test_what_fails_is_told_to_schedulers(
    make_worker: MakeWorker, receiver: FakeReceiver, registry: JobRegistry, desk: FakeDesk
) -> None:
    @registry.handler("send")
    async def send(ctx: JobContext, payload: dict[str, Any]) -> None:
        raise OSError("down")

    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    receiver.put(*[started_job() for _ in range(3)])
    await until(
        lambda: sum(count.failed for told in desk.reports for count in told.counts.values()) == 3
    )
    worker.stop(grace_seconds=1)

    await asyncio.wait_for(running, 20)
