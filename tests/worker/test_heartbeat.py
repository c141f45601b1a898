"""Leases are renewed from a thread of their own, whatever the event loop does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from moving_parts import Events, started_job, until
from store.factories import JobFactory

from async_jobs.core.outcome import Interruption
from async_jobs.models import JobContext, JobStatus, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.store.jobs import JobStore
from async_jobs.store.lease_keeper import LeaseKeeper
from async_jobs.worker.heartbeat import Heartbeat
from async_jobs.worker.worker import Worker

from .conftest import FakeEnqueuer, FakeKeeper, FakeReceiver

BEAT_SECONDS = 0.01


class Told:
    """Keeps what a heartbeat tells its worker."""

    def __init__(self) -> None:
        self.interrupted: list[tuple[UUID, int, Interruption | None]] = []
        self.failures: list[BaseException] = []

    def interrupt(self, job_id: UUID, lease_seq: int, why: Interruption | None) -> None:
        self.interrupted.append((job_id, lease_seq, why))


@asynccontextmanager
async def beating(keeper: FakeKeeper, told: Told, lease: float = 600.0) -> AsyncIterator[Heartbeat]:
    heartbeat = Heartbeat(
        keeper,
        interval_seconds=BEAT_SECONDS,
        lease_seconds=lease,
        interrupt=told.interrupt,
        failed=told.failures.append,
    )
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()


def hold(heartbeat: Heartbeat, job: StartedJob, ago: float = 0.0) -> None:
    heartbeat.hold(job.id, job.lease_seq, asked_at=time.monotonic() - ago)


async def test_every_lease_held_is_renewed_in_one_statement(keeper: FakeKeeper) -> None:
    one, other = started_job(lease_seq=1), started_job(lease_seq=5)
    async with beating(keeper, Told()) as heartbeat:
        hold(heartbeat, one)
        hold(heartbeat, other)
        await until(lambda: {one.id: 1, other.id: 5} in keeper.beats)


async def test_nothing_is_asked_of_the_database_while_nothing_is_held(keeper: FakeKeeper) -> None:
    async with beating(keeper, Told()) as heartbeat:
        await until(lambda: heartbeat.is_alive)

    assert keeper.beats == []


async def test_the_event_loop_looks_for_doubtful_leases_only_while_any_is_held(
    keeper: FakeKeeper,
) -> None:
    job = started_job()
    async with beating(keeper, Told(), lease=0.1) as heartbeat:
        idle = heartbeat._looking
        hold(heartbeat, job)
        busy = heartbeat._looking
        heartbeat.drop(job.id, job.lease_seq)
        await until(lambda: heartbeat._looking is None)

    assert idle is None
    assert busy is not None


async def test_a_dropped_lease_is_renewed_no_more(keeper: FakeKeeper) -> None:
    one, other = started_job(), started_job()
    async with beating(keeper, Told()) as heartbeat:
        hold(heartbeat, one)
        hold(heartbeat, other)
        await until(lambda: keeper.beats)
        heartbeat.drop(one.id, one.lease_seq)
        await until(lambda: keeper.beats[-1] == {other.id: 1})


async def test_the_end_of_an_old_attempt_does_not_drop_the_lease_of_a_new_one(
    keeper: FakeKeeper,
) -> None:
    old = started_job(lease_seq=1)
    async with beating(keeper, Told()) as heartbeat:
        hold(heartbeat, old)
        heartbeat.hold(old.id, 2, asked_at=time.monotonic())
        heartbeat.drop(old.id, 1)

        await until(lambda: {old.id: 2} in keeper.beats)


async def test_a_lease_that_was_lost_interrupts_its_attempt(keeper: FakeKeeper) -> None:
    lost, kept = started_job(lease_seq=4), started_job()
    keeper.lost = {lost.id}
    told = Told()
    async with beating(keeper, told) as heartbeat:
        hold(heartbeat, lost)
        hold(heartbeat, kept)
        await until(lambda: told.interrupted)

    assert set(told.interrupted) == {(lost.id, 4, None)}


async def test_a_cancel_that_was_asked_for_interrupts_its_attempt(keeper: FakeKeeper) -> None:
    job = started_job()
    keeper.cancelled = {job.id}
    told = Told()
    async with beating(keeper, told) as heartbeat:
        hold(heartbeat, job)
        await until(lambda: told.interrupted)

    assert set(told.interrupted) == {(job.id, 1, Interruption.CANCELLED)}


async def test_a_short_outage_interrupts_nothing(keeper: FakeKeeper) -> None:
    job = started_job()
    keeper.away = True
    told = Told()
    async with beating(keeper, told) as heartbeat:
        hold(heartbeat, job)
        await until(lambda: len(told.failures) >= 3)
        keeper.away = False
        seen = len(keeper.beats)
        await until(lambda: len(keeper.beats) > seen + 2)

    assert told.interrupted == []


async def test_an_outage_interrupts_before_the_lease_ends(keeper: FakeKeeper) -> None:
    """From then on the job may run elsewhere. Counted from the start, not the first failure."""
    old, young = started_job(), started_job()
    keeper.away = True
    told = Told()
    async with beating(keeper, told, lease=600.0) as heartbeat:
        hold(heartbeat, old, ago=599.99)
        hold(heartbeat, young)
        await until(lambda: told.interrupted)

    assert set(told.interrupted) == {(old.id, 1, None)}


async def test_a_renewal_counts_as_a_new_lease_in_the_next_outage(keeper: FakeKeeper) -> None:
    job = started_job()
    told = Told()
    async with beating(keeper, told, lease=600.0) as heartbeat:
        hold(heartbeat, job, ago=599.99)
        await until(lambda: len(keeper.beats) >= 2)
        keeper.away = True
        await until(lambda: len(told.failures) >= 2)

    assert told.interrupted == []


async def test_no_error_whatever_ends_the_heartbeat(
    keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "extend", _broken)
        async with beating(keeper, told) as heartbeat:
            hold(heartbeat, started_job())
            await until(lambda: told.failures)
            patch.undo()
            await until(lambda: keeper.beats)

            assert heartbeat.is_alive


async def test_stopping_ends_the_thread_and_closes_its_connection(keeper: FakeKeeper) -> None:
    async with beating(keeper, Told()) as heartbeat:
        pass

    assert (heartbeat.is_alive, keeper.closed) == (False, True)


async def test_a_handler_that_blocks_the_loop_costs_nobody_a_lease(
    database: str,
    store: JobStore,
    jobs: JobFactory,
    registry: JobRegistry,
    receiver: FakeReceiver,
    enqueuer: FakeEnqueuer,
    events: Events,
) -> None:
    """For three leases: its own and its neighbours' are renewed, none ever runs out."""
    lease_seconds = 1.0
    let_go = asyncio.Event()

    @registry.handler("block")
    async def block(ctx: JobContext, payload: dict[str, Any]) -> str:
        time.sleep(3 * lease_seconds)  # noqa: ASYNC251 # what must not be done, and is
        let_go.set()
        return "blocked"

    @registry.handler("send")
    async def send(ctx: JobContext, payload: dict[str, Any]) -> str:
        await let_go.wait()
        return "sent"

    worker = Worker(
        "ada",
        store,
        LeaseKeeper(database, application_name="keeper", timeout_seconds=5.0),
        [receiver],
        registry,
        concurrency=5,
        lease_seconds=lease_seconds,
        heartbeat_interval_seconds=0.05,
        enqueuer=enqueuer,
        bus=events.bus,
    )
    running = asyncio.ensure_future(worker.run())
    others = [await jobs.running() for _ in range(3)]
    blocking = await jobs.running(type="block")
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("UPDATE jobs SET lease_expires_at = clock_timestamp() + '1 s'")
    with watching_leases(database) as ran_out:
        receiver.put(*others, blocking)
        await until(lambda: events.names().count("JobSucceeded") == 4)
    worker.stop(grace_seconds=5)
    await running

    assert ran_out == []
    rows = [await jobs.row(job) for job in (*others, blocking)]
    assert [row.status for row in rows] == [JobStatus.SUCCEEDED] * 4
    assert [row.attempts for row in rows] == [1] * 4
    assert "LeaseLost" not in events.names()


async def test_a_database_that_gives_no_answer_ends_the_handlers_before_their_leases() -> None:
    let_go = threading.Event()
    interrupted: list[float] = []

    class Silent(FakeKeeper):
        def extend(self, held: Mapping[UUID, int], *, lease_seconds: float) -> dict[UUID, bool]:
            let_go.wait(20)
            return {}

    heartbeat = Heartbeat(
        Silent(),
        interval_seconds=0.01,
        lease_seconds=3.0,
        interrupt=lambda *_: interrupted.append(time.monotonic()),
        failed=lambda error: None,
    )
    heartbeat.start()
    asked_at = time.monotonic()
    heartbeat.hold(uuid4(), 1, asked_at=asked_at)
    try:
        await until(lambda: interrupted)
    finally:
        let_go.set()
        heartbeat.stop()

    assert interrupted[0] < asked_at + 3.0


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), RuntimeError()])
async def test_nothing_that_a_beat_may_raise_ends_the_heartbeat(error: BaseException) -> None:
    told: list[BaseException] = []

    class Broken(FakeKeeper):
        def extend(self, held: Mapping[UUID, int], *, lease_seconds: float) -> dict[UUID, bool]:
            super().extend(held, lease_seconds=lease_seconds)
            if len(self.beats) == 1:
                raise error
            return dict.fromkeys(held, False)

    keeper = Broken()
    heartbeat = Heartbeat(
        keeper,
        interval_seconds=0.01,
        lease_seconds=600,
        interrupt=lambda *_: None,
        failed=told.append,
    )
    heartbeat.start()
    heartbeat.hold(uuid4(), 1, asked_at=time.monotonic())
    await until(lambda: len(keeper.beats) > 2)

    assert told == [error]
    assert (heartbeat.is_alive, heartbeat.has_died) == (True, False)
    heartbeat.stop()


async def test_a_cancel_ends_the_running_handler(
    database: str,
    store: JobStore,
    jobs: JobFactory,
    registry: JobRegistry,
    receiver: FakeReceiver,
    enqueuer: FakeEnqueuer,
    events: Events,
) -> None:
    entered = asyncio.Event()

    @registry.handler("send")
    async def send(ctx: JobContext, payload: dict[str, Any]) -> None:
        entered.set()
        await asyncio.sleep(3_600)

    worker = Worker(
        "ada",
        store,
        LeaseKeeper(database, application_name="keeper", timeout_seconds=5.0),
        [receiver],
        registry,
        concurrency=5,
        lease_seconds=30,
        heartbeat_interval_seconds=0.02,
        enqueuer=enqueuer,
        bus=events.bus,
    )
    running = asyncio.ensure_future(worker.run())
    job = await jobs.running()
    receiver.put(job)
    await entered.wait()

    await store.cancel(job.id)

    await until(lambda: "JobCancelled" in events.names())
    worker.stop(grace_seconds=5)
    await running
    assert (await jobs.row(job)).status == JobStatus.CANCELLED


@contextmanager
def watching_leases(database: str) -> Iterator[list[object]]:
    """Collects, from a thread, the leases that run out while inside."""
    ran_out: list[object] = []
    stop = threading.Event()

    def watch() -> None:
        with psycopg.connect(database, autocommit=True) as conn:
            while not stop.wait(0.02):
                ran_out.extend(
                    conn.execute(
                        "SELECT id FROM jobs WHERE leased_at IS NOT NULL "
                        "AND lease_expires_at <= clock_timestamp()"
                    )
                )

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield ran_out
    finally:
        stop.set()
        thread.join()


def _broken(*args: object, **more: object) -> dict[UUID, bool]:
    raise RuntimeError("nobody thought of this one")
