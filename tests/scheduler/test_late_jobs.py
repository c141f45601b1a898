"""What a use case wants of late jobs is done in the scheduler's turn, before it leases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from moving_parts import Events
from store.factories import JobFactory, SettableClock

from async_jobs.models import JobStatus
from async_jobs.scheduler import late
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.telemetry.events import JobEndedLate

from .conftest import FakeSender, MakeDispatcher


@pytest.fixture
def dropping(make_dispatcher: MakeDispatcher) -> Dispatcher:
    return make_dispatcher(on_late="drop", capacity=2)


async def test_late_jobs_are_dropped_before_the_slots_are_given_out(
    jobs: JobFactory,
    clock: SettableClock,
    dropping: Dispatcher,
    sender: FakeSender,
    events: Events,
) -> None:
    late_jobs = [await jobs.waiting(delay_tolerance_seconds=1.0) for _ in range(3)]
    clock.advance(5)
    timely = [await jobs.waiting(delay_tolerance_seconds=60.0) for _ in range(2)]

    done = await dropping.dispatch()

    assert done.sent == 2
    assert {job.job_id for job in sender.sent} == {job.id for job in timely}
    assert {(await jobs.row(job)).status for job in late_jobs} == {JobStatus.CANCELLED}
    told = events.of(JobEndedLate)
    assert {event.job_id for event in told} == {job.id for job in late_jobs}
    assert {(event.late_by_seconds, event.dead) for event in told} == {(4.0, False)}


async def test_a_use_case_may_have_them_dead(
    jobs: JobFactory, clock: SettableClock, make_dispatcher: MakeDispatcher, events: Events
) -> None:
    job = await jobs.waiting(delay_tolerance_seconds=1.0)
    clock.advance(5)

    await make_dispatcher(on_late="dead").dispatch()

    assert (await jobs.row(job)).status is JobStatus.DEAD
    assert [event.dead for event in events.of(JobEndedLate)] == [True]


async def test_by_default_late_jobs_run(
    jobs: JobFactory, clock: SettableClock, make_dispatcher: MakeDispatcher, events: Events
) -> None:
    await jobs.waiting(delay_tolerance_seconds=1.0)
    clock.advance(5)

    assert (await make_dispatcher().dispatch()).sent == 1
    assert events.of(JobEndedLate) == []


async def test_more_late_jobs_than_a_pass_ends_bring_the_next_pass_at_once(
    jobs: JobFactory,
    clock: SettableClock,
    make_dispatcher: MakeDispatcher,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late, "MOST_ENDED_PER_PASS", 2)
    monkeypatch.setattr("async_jobs.scheduler.dispatch.MOST_ENDED_PER_PASS", 2)
    for _ in range(3):
        await jobs.waiting(delay_tolerance_seconds=1.0)
    clock.advance(5)
    dispatcher = make_dispatcher(on_late="drop", capacity=1)
    dispatcher.use_case = replace(dispatcher.use_case, max_concurrent=1)

    first = await dispatcher.tick()
    await dispatcher.tick()

    assert first <= 0.001
    assert len(events.of(JobEndedLate)) >= 2
