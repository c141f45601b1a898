"""How a worker stops: what runs may end, what does not is given back, and it always ends."""

from __future__ import annotations

import asyncio

import pytest
from moving_parts import Events, started_job, until

from async_jobs.errors import StoreUnavailable
from async_jobs.models import JobStatus, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.telemetry.events import (
    JobReleased,
    JobStarted,
    LoopFailed,
    ProcessStopping,
    StuckHandlerEnded,
)

from .conftest import FakeDesk, FakeReceiver, Handler, MakeWorker

pytestmark = pytest.mark.usefixtures("short_last_words")


async def test_a_stop_lets_running_attempts_finish(
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
    await until(lambda: handler.running)

    worker.stop(grace_seconds=3_600)
    await until(lambda: events.of(ProcessStopping))
    handler.let_go.set()
    await asyncio.wait_for(running, 20)

    assert desk.outcomes[job.id].status == JobStatus.SUCCEEDED
    assert [event.running for event in events.of(ProcessStopping)] == [1]
    assert (receiver.handed_back, receiver.closed) == (1, True)


async def test_after_the_grace_what_still_runs_is_released_unused(
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
    await until(lambda: handler.running)

    worker.stop(grace_seconds=0.01)
    await asyncio.wait_for(running, 20)

    outcome = desk.outcomes[job.id]
    assert (outcome.status, outcome.gives_attempt_back) == (JobStatus.PENDING, True)
    assert outcome.delay_seconds is None
    assert len(events.of(JobReleased)) == 1


async def test_a_second_stop_ends_the_grace(
    make_worker: MakeWorker, receiver: FakeReceiver, handler: Handler, desk: FakeDesk
) -> None:
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    job = started_job()
    receiver.put(job)
    await until(lambda: handler.running)

    worker.stop(grace_seconds=3_600)
    await asyncio.sleep(0)
    worker.stop(grace_seconds=3_600)
    await asyncio.wait_for(running, 20)

    assert desk.outcomes[job.id].gives_attempt_back


async def test_a_stop_waits_for_a_long_poll_and_hands_back_what_it_brings(
    make_worker: MakeWorker, receiver: FakeReceiver, handler: Handler, events: Events
) -> None:
    receiver.poll_seconds = 3_600
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    await until(lambda: receiver.waiting)

    worker.stop(grace_seconds=0)
    await until(lambda: events.of(ProcessStopping))
    assert not running.done()
    receiver.put(started_job())
    await asyncio.wait_for(running, 20)

    assert events.of(JobStarted) == []
    assert (receiver.handed_back, receiver.closed) == (1, True)


async def test_a_second_stop_waits_for_no_long_poll(
    make_worker: MakeWorker, receiver: FakeReceiver
) -> None:
    receiver.poll_seconds = 3_600
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    await until(lambda: receiver.waiting)

    worker.stop(grace_seconds=0)
    worker.stop(grace_seconds=0)

    await asyncio.wait_for(running, 20)


async def test_a_worker_stopped_before_it_runs_takes_nothing_in(
    make_worker: MakeWorker, receiver: FakeReceiver, handler: Handler, events: Events
) -> None:
    receiver.put(started_job())
    worker = make_worker()
    worker.stop(grace_seconds=5)

    await asyncio.wait_for(worker.run(), 20)

    assert events.of(JobStarted) == []
    assert receiver.closed


async def test_jobs_that_were_just_being_started_get_what_is_left_of_the_grace(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    handler: Handler,
    desk: FakeDesk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starting, go = asyncio.Event(), asyncio.Event()
    start = receiver.start

    async def slow(slots: int) -> list[StartedJob]:
        starting.set()
        await go.wait()
        return await start(slots)

    monkeypatch.setattr(receiver, "start", slow)
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    job = started_job()
    receiver.put(job)
    await starting.wait()
    worker.stop(grace_seconds=3_600)
    await asyncio.sleep(0)
    go.set()
    await until(lambda: handler.running)
    handler.let_go.set()
    await asyncio.wait_for(running, 20)

    assert desk.outcomes[job.id].status == JobStatus.SUCCEEDED


async def test_jobs_begun_while_others_end_get_what_is_left_of_the_grace(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    handler: Handler,
    registry: JobRegistry,
    desk: FakeDesk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = Handler()
    registry.handler("later")(later)
    starting, go = asyncio.Event(), asyncio.Event()
    start = receiver.start

    async def slow(slots: int) -> list[StartedJob]:
        if handler.running:
            starting.set()
            await go.wait()
        return await start(slots)

    monkeypatch.setattr(receiver, "start", slow)
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    first, second = started_job(), started_job(type="later")
    receiver.put(first)
    await until(lambda: handler.running)
    receiver.put(second)
    await starting.wait()
    worker.stop(grace_seconds=3_600)
    await asyncio.sleep(0)
    go.set()
    await until(lambda: later.running)
    handler.let_go.set()
    await until(lambda: first.id in desk.outcomes)
    later.let_go.set()
    await asyncio.wait_for(running, 20)

    assert desk.outcomes[second.id].status == JobStatus.SUCCEEDED


async def test_a_handler_that_ignores_its_interruption_is_left_behind_and_its_job_released(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    registry: JobRegistry,
    desk: FakeDesk,
    events: Events,
) -> None:
    stubborn = Handler(stubborn=True)
    registry.handler("send")(stubborn)
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    job = started_job()
    receiver.put(job)
    await until(lambda: stubborn.running)

    worker.stop(grace_seconds=0)
    await asyncio.wait_for(running, 20)

    assert stubborn.running == 1
    assert desk.outcomes[job.id].gives_attempt_back
    stubborn.let_go.set()
    await until(lambda: events.of(StuckHandlerEnded))
    assert len(events.of(JobReleased)) == 1


async def test_a_stop_while_the_database_is_away_ends_in_time(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    handler: Handler,
    desk: FakeDesk,
    events: Events,
) -> None:
    desk.away = True
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    receiver.put(started_job())
    handler.let_go.set()
    await until(lambda: desk.tries)

    worker.stop(grace_seconds=0)

    await asyncio.wait_for(running, 20)
    assert desk.outcomes == {}


async def test_a_hand_back_that_fails_at_the_stop_is_told_and_does_not_keep_the_worker(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away() -> None:
        raise StoreUnavailable

    monkeypatch.setattr(receiver, "hand_back", away)
    worker = make_worker()
    worker.stop(grace_seconds=0)

    await asyncio.wait_for(worker.run(), 20)

    assert len(events.of(LoopFailed)) == 1
