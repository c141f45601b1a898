"""The worker as a whole: how it begins attempts, and above all how it stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from moving_parts import Events, started_job, until

from async_jobs.errors import StoreUnavailable
from async_jobs.models import JobContext, JobStatus, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.telemetry.events import (
    JobReleased,
    JobStarted,
    JobSucceeded,
    LeaseLost,
    LoopFailed,
    ProcessStopping,
)
from async_jobs.worker import recorder as recorder_module
from async_jobs.worker import worker as worker_module
from async_jobs.worker.worker import Worker

from .conftest import FakeDesk, FakeEnqueuer, FakeKeeper, FakeReceiver

MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker(
    desk: FakeDesk,
    keeper: FakeKeeper,
    receiver: FakeReceiver,
    registry: JobRegistry,
    enqueuer: FakeEnqueuer,
    events: Events,
) -> MakeWorker:
    def make(
        *more: FakeReceiver, concurrency: int = 5, lease_seconds: float = 600.0, beat: float = 0.01
    ) -> Worker:
        return Worker(
            "ada",
            desk,
            keeper,
            [receiver, *more],
            registry,
            concurrency=concurrency,
            lease_seconds=lease_seconds,
            heartbeat_interval_seconds=beat,
            enqueuer=enqueuer,
            bus=events.bus,
        )

    return make


@pytest.fixture(autouse=True)
def short_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LAST_WORDS_SECONDS", 0.2)
    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.01)


class Handler:
    """Runs until `let_go`; counts how many run at once."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.let_go = asyncio.Event()
        self.running = 0
        self.most = 0
        self._stubborn = stubborn

    async def __call__(self, ctx: JobContext, payload: dict[str, Any]) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while not self.let_go.is_set():
                await self._wait()
        finally:
            self.running -= 1
        return "done"

    async def _wait(self) -> None:
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            if not self._stubborn:
                raise


@pytest.fixture
def handler(registry: JobRegistry) -> Handler:
    made = Handler()
    registry.handler("send")(made)
    return made


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


async def test_a_handler_that_ignores_its_interruption_is_left_behind(
    make_worker: MakeWorker, receiver: FakeReceiver, registry: JobRegistry, events: Events
) -> None:
    stubborn = Handler(stubborn=True)
    registry.handler("send")(stubborn)
    worker = make_worker()
    running = asyncio.ensure_future(worker.run())
    receiver.put(started_job())
    await until(lambda: stubborn.running)

    worker.stop(grace_seconds=0)
    await asyncio.wait_for(running, 20)

    assert stubborn.running == 1
    stubborn.let_go.set()
    # Its end is answered although nobody writes outcomes any more.
    await until(lambda: events.of(LeaseLost))


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
