"""The scheduler as a whole: housekeeping finds what has come, and wakes whoever can act on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import cast

import psycopg
import pytest
from moving_parts import Events, open_store, until
from store.factories import MIDNIGHT, SUCCEEDED, JobFactory, SettableClock

from async_jobs.errors import StoreUnavailable
from async_jobs.models import JobStatus, Leased
from async_jobs.scheduler import loop as scheduler_loop
from async_jobs.scheduler.loop import Scheduler
from async_jobs.store.jobs import JobStore, Survey
from async_jobs.telemetry.events import (
    JobRescued,
    JobsPruned,
    LeaseUnused,
    LoopFailed,
    LoopRecovered,
)

from .conftest import FakeSender, MakeScheduler


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[None]:
    task = asyncio.ensure_future(scheduler.run())
    try:
        yield
    finally:
        scheduler.stop()
        await asyncio.wait_for(task, 20)


async def test_a_tick_sends_what_is_due(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender
) -> None:
    await jobs.waiting()
    await jobs.waiting(use_case="labels")

    report = await make_scheduler("mail", "labels").tick()

    assert (report.sent, len(sender.sent)) == (2, 2)


async def test_a_tick_lets_a_scheduled_job_wait_when_its_time_has_come(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender, clock: SettableClock
) -> None:
    job = await jobs.waiting(run_at=MIDNIGHT.replace(hour=1))
    scheduler = make_scheduler()

    early = await scheduler.tick()
    clock.advance(3_600)
    in_time = await scheduler.tick()

    assert (early.promoted, early.sent) == (0, 0)
    assert (in_time.promoted, in_time.sent) == (1, 1)
    assert sender.sent[0].job_id == job.id


async def test_a_tick_takes_back_the_job_of_a_lost_worker(
    jobs: JobFactory, make_scheduler: MakeScheduler, events: Events, clock: SettableClock
) -> None:
    job = await jobs.running()
    clock.advance(jobs.lease_seconds + 1)

    report = await make_scheduler().tick()

    (told,) = events.of(JobRescued)
    row = await jobs.row(job)
    assert (report.rescued, report.sent) == (1, 1)
    assert (told.job_id, told.worker, told.attempt, told.dead) == (job.id, "worker-1", 1, False)
    assert (row.attempts, row.lease_seq) == (1, 2)


async def test_the_last_attempt_of_a_lost_worker_leaves_the_job_dead(
    jobs: JobFactory, make_scheduler: MakeScheduler, events: Events, clock: SettableClock
) -> None:
    job = await jobs.running(max_attempts=1)
    clock.advance(jobs.lease_seconds + 1)

    await make_scheduler().tick()

    assert (await jobs.row(job)).status == JobStatus.DEAD
    assert [event.dead for event in events.of(JobRescued)] == [True]


async def test_a_lease_that_no_worker_used_is_told_as_such(
    jobs: JobFactory, make_scheduler: MakeScheduler, events: Events, clock: SettableClock
) -> None:
    """It says nothing about a worker, not even about that of an earlier attempt."""
    job = await jobs.leased()
    clock.advance(jobs.lease_seconds + 1)

    await make_scheduler().tick()

    assert events.of(JobRescued) == []
    assert [event.job_id for event in events.of(LeaseUnused)] == [job.job_id]
    assert (await jobs.row(job)).attempts == 0


async def test_a_rescued_job_of_an_unknown_use_case_is_left_to_its_own_scheduler(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender, clock: SettableClock
) -> None:
    await jobs.leased(use_case="elsewhere")
    clock.advance(jobs.lease_seconds + 1)

    report = await make_scheduler("mail").tick()

    assert (report.rescued, sender.sent) == (1, [])


async def test_finished_jobs_are_pruned_after_the_retention(
    jobs: JobFactory, make_scheduler: MakeScheduler, events: Events, clock: SettableClock
) -> None:
    await jobs.finished()
    clock.advance(100)
    young = await jobs.finished()
    clock.advance(50)

    report = await make_scheduler(retention_seconds=120.0).tick()

    assert report.pruned == 1
    assert [(event.use_case, event.jobs) for event in events.of(JobsPruned)] == [("mail", 1)]
    assert (await jobs.row(young)).status == JobStatus.SUCCEEDED


async def test_without_a_retention_nothing_is_pruned(
    jobs: JobFactory, make_scheduler: MakeScheduler, clock: SettableClock
) -> None:
    old = await jobs.finished()
    clock.advance(1e9)

    assert (await make_scheduler(retention_seconds=0.0).tick()).pruned == 0
    assert (await jobs.row(old)).status == JobStatus.SUCCEEDED


async def test_pruning_is_not_part_of_every_tick(
    jobs: JobFactory, make_scheduler: MakeScheduler, clock: SettableClock
) -> None:
    scheduler = make_scheduler(retention_seconds=1.0)
    await scheduler.tick()
    await jobs.finished()
    clock.advance(10)

    assert (await scheduler.tick()).pruned == 0


async def test_a_prune_that_was_cut_off_goes_on_in_the_next_tick(
    jobs: JobFactory,
    make_scheduler: MakeScheduler,
    clock: SettableClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler_loop, "MOST_PER_BATCH", 2)
    for _ in range(3):
        await jobs.finished()
    clock.advance(10)
    scheduler = make_scheduler(retention_seconds=1.0)

    assert [(await scheduler.tick()).pruned for _ in range(2)] == [2, 1]


@pytest.mark.parametrize(
    ("due_in", "expiry_in", "moved", "sleeps"),
    [
        (None, None, False, 5.0),
        (1.5, None, False, 1.5),
        (9.0, 0.4, False, 0.4),
        (7.0, 8.0, False, 5.0),
        (0.001, None, False, 0.01),
        (-1.0, None, True, 0.01),
        (None, -3.0, False, 0.25),
        (0.002, -3.0, False, 0.01),
    ],
    ids=[
        "nothing ahead",
        "next due",
        "next expiry",
        "interval",
        "very soon",
        "more than a batch",
        "in other hands",
        "in other hands and soon",
    ],
)
async def test_housekeeping_sleeps_until_the_next_moment(
    make_scheduler: MakeScheduler,
    due_in: float | None,
    expiry_in: float | None,
    moved: bool,
    sleeps: float,
) -> None:
    scheduler = make_scheduler(interval_seconds=5.0)
    survey = Survey(
        use_cases_with_work=[], next_due_in_seconds=due_in, next_expiry_in_seconds=expiry_in
    )

    assert scheduler._sleep_after(survey, moved=moved) == pytest.approx(sleeps)


async def test_an_expired_lease_on_a_row_in_other_hands_does_not_spin_the_loop(
    jobs: JobFactory, make_scheduler: MakeScheduler, clock: SettableClock, database: str
) -> None:
    job = await jobs.running()
    clock.advance(jobs.lease_seconds + 1)
    async with await psycopg.AsyncConnection.connect(database) as other:
        await other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [job.id])

        assert await make_scheduler()._house_tick() == pytest.approx(0.25)


async def test_a_job_is_sent_when_it_becomes_due_without_any_hint(
    database: str, make_scheduler: MakeScheduler, sender: FakeSender, store: JobStore
) -> None:
    """With the database's clock: the loop sleeps until the moment, not until its interval."""
    async with open_store(database) as live:
        scheduler = make_scheduler(interval_seconds=3_600.0)
        scheduler._desk = live
        scheduler._dispatchers["mail"]._desk = live
        async with running(scheduler):
            await _until_idle(scheduler)
            moment = await _database_time(database) + timedelta(seconds=0.3)
            job = await JobFactory(live).waiting(run_at=moment)
            scheduler.look_again()

            await until(lambda: sender.sent)
            assert await _database_time(database) >= moment

    assert [one.job_id for one in sender.sent] == [job.id]


async def _database_time(database: str) -> datetime:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        row = await (await conn.execute("SELECT clock_timestamp()")).fetchone()
    assert row is not None
    return cast(datetime, row[0])


async def test_a_hint_wakes_the_use_case_it_names(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender
) -> None:
    scheduler = make_scheduler("mail", "labels")
    async with running(scheduler):
        await _until_idle(scheduler)
        await jobs.waiting()
        labels = scheduler.loops[2]
        turned_at = labels.progress_at
        scheduler.hint("never heard of")
        scheduler.hint("labels")
        await until(lambda: labels.progress_at > turned_at)
        assert sender.sent == []

        scheduler.hint("mail")
        await until(lambda: sender.sent)


async def test_looking_again_finds_what_no_hint_told(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender
) -> None:
    scheduler = make_scheduler()
    async with running(scheduler):
        await _until_idle(scheduler)
        await jobs.waiting()

        scheduler.look_again()

        await until(lambda: sender.sent)


async def test_without_any_hint_the_interval_finds_the_job(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender
) -> None:
    scheduler = make_scheduler(interval_seconds=0.05)
    async with running(scheduler):
        await _until_idle(scheduler)
        await jobs.waiting()

        await until(lambda: sender.sent)


async def test_slots_are_refilled_when_they_free_and_not_at_the_interval(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender, store: JobStore
) -> None:
    running_job = await jobs.running()
    await jobs.waiting()
    scheduler = make_scheduler(interval_seconds=3_600.0, capacity=1)
    async with running(scheduler):
        await until(lambda: scheduler.loops[1].progress_at)
        await store.finish([(running_job, SUCCEEDED)])

        await until(lambda: sender.sent)


async def test_a_failing_store_does_not_end_the_loops(
    jobs: JobFactory,
    make_scheduler: MakeScheduler,
    sender: FakeSender,
    store: JobStore,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await jobs.waiting()
    scheduler = make_scheduler()
    with monkeypatch.context() as patch:
        patch.setattr(store, "survey", _unavailable)
        patch.setattr(store, "take_turn", _unavailable)
        task = asyncio.ensure_future(scheduler.run())
        await until(lambda: len({event.loop for event in events.of(LoopFailed)}) == 2)

    await until(lambda: sender.sent)
    await until(lambda: len({event.loop for event in events.of(LoopRecovered)}) == 2)
    scheduler.stop()
    await task


async def test_one_queue_that_hangs_holds_up_no_other(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender
) -> None:
    scheduler = make_scheduler("labels", "mail")
    released = asyncio.Event()

    async def hang(leased: Sequence[Leased]) -> None:
        await released.wait()

    hanging = FakeSender(meanwhile=hang)
    scheduler._dispatchers["labels"]._sender = hanging
    await jobs.waiting(use_case="labels")
    mail = await jobs.waiting(use_case="mail")
    async with running(scheduler):
        await until(lambda: sender.sent)
        assert [one.job_id for one in sender.sent] == [mail.id]
        released.set()
        await until(lambda: hanging.sent)


async def test_a_scheduler_that_was_stopped_before_it_ran_ends_at_once(
    make_scheduler: MakeScheduler,
) -> None:
    scheduler = make_scheduler()
    scheduler.stop()

    await asyncio.wait_for(scheduler.run(), 20)


async def test_two_schedulers_send_every_job_once_and_stay_within_capacity(
    jobs: JobFactory, make_scheduler: MakeScheduler, sender: FakeSender, store: JobStore
) -> None:
    for _ in range(60):
        await jobs.waiting()
    rivals = [make_scheduler(capacity=7, interval_seconds=0.05) for _ in range(2)]
    in_flight = []
    async with running(rivals[0]), running(rivals[1]):
        for finished in range(60):
            await until(partial(_sent_more_than, sender, finished))
            in_flight.append(len(sender.sent) - finished)
            job = await jobs.start(sender.sent[finished])
            await store.finish([(job, SUCCEEDED)])

    assert len({one.job_id for one in sender.sent}) == len(sender.sent) == 60
    assert max(in_flight) <= 7


def _sent_more_than(sender: FakeSender, finished: int) -> bool:
    return len(sender.sent) > finished


async def _until_idle(scheduler: Scheduler) -> None:
    """Until every loop has had a turn of its own."""
    turned_at = {loop: loop.progress_at for loop in scheduler.loops}
    for loop in scheduler.loops:
        loop.wake()
    await until(lambda: all(loop.progress_at > at for loop, at in turned_at.items()))


def _unavailable(*args: object) -> object:
    raise StoreUnavailable
