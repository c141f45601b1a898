"""Outcomes are written in batches, none takes its neighbours with it, none is lost in an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from moving_parts import Events, started_job, until
from store.factories import RETRIED, SUCCEEDED, JobFactory

from async_jobs.core.outcome import Outcome
from async_jobs.models import JobStatus, StartedJob
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.events import LoopFailed
from async_jobs.worker import recorder as recorder_module
from async_jobs.worker.recorder import FinishDesk, Recorder

from .conftest import FakeDesk


@asynccontextmanager
async def recording(
    desk: FinishDesk, events: Events, lease_seconds: float = 30.0
) -> AsyncIterator[Recorder]:
    recorder = Recorder(desk, lease_seconds=lease_seconds, bus=events.bus)
    running = asyncio.ensure_future(recorder.run())
    try:
        yield recorder
    finally:
        recorder.stop(within_seconds=20)
        await asyncio.wait_for(running, 30)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.005)


async def record(recorder: Recorder, job: StartedJob, outcome: Outcome = SUCCEEDED) -> bool:
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    recorder.record(job, outcome, answer.set_result)
    return await asyncio.wait_for(answer, 20)


async def record_all(recorder: Recorder, *jobs: StartedJob) -> list[bool]:
    return await asyncio.gather(*[record(recorder, job) for job in jobs])


async def test_an_outcome_is_written_at_once_when_nothing_else_is(
    desk: FakeDesk, events: Events
) -> None:
    async with recording(desk, events) as recorder:
        assert await record(recorder, started_job())

    assert [len(batch) for batch in desk.batches] == [1]


async def test_outcomes_that_come_during_a_write_travel_together(
    desk: FakeDesk, events: Events
) -> None:
    jobs = [started_job() for _ in range(9)]
    async with recording(desk, events) as recorder:
        desk.gate.clear()
        first = asyncio.ensure_future(record(recorder, jobs[0]))
        await until(lambda: desk.tries == 1)
        others = [asyncio.ensure_future(record(recorder, job)) for job in jobs[1:]]
        await asyncio.sleep(0)
        desk.gate.set()
        answers = await asyncio.gather(first, *others)

    assert answers == [True] * 9
    assert [len(batch) for batch in desk.batches] == [1, 8]


async def test_a_statement_has_a_largest_size(
    desk: FakeDesk, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MOST_PER_STATEMENT", 4)
    async with recording(desk, events) as recorder:
        await record_all(recorder, *[started_job() for _ in range(10)])

    assert max(len(batch) for batch in desk.batches) == 4


async def test_an_outcome_without_effect_says_so(desk: FakeDesk, events: Events) -> None:
    kept, lost = started_job(), started_job()
    desk.lost = {lost.id}
    async with recording(desk, events) as recorder:
        assert await record_all(recorder, kept, lost) == [True, False]


async def test_one_outcome_that_the_database_refuses_leaves_its_neighbours_alone(
    desk: FakeDesk, events: Events
) -> None:
    jobs = [started_job() for _ in range(7)]
    desk.refused = {jobs[3].id}
    async with recording(desk, events) as recorder:
        answers = await record_all(recorder, *jobs)

    assert answers == [job is not jobs[3] for job in jobs]
    assert set(desk.outcomes) == {job.id for job in jobs} - {jobs[3].id}
    assert len(events.of(LoopFailed)) == 1


async def test_outcomes_are_kept_through_an_outage(desk: FakeDesk, events: Events) -> None:
    jobs = [started_job() for _ in range(3)]
    desk.away = True
    async with recording(desk, events) as recorder:
        answers = asyncio.ensure_future(record_all(recorder, *jobs))
        await until(lambda: desk.tries >= 3)
        assert not answers.done()
        desk.away = False

        assert await answers == [True] * 3
    assert len(events.of(LoopFailed)) >= 3


async def test_outcomes_older_than_their_lease_are_given_up(desk: FakeDesk, events: Events) -> None:
    desk.away = True
    async with recording(desk, events, lease_seconds=0.05) as recorder:
        answer = await record(recorder, started_job())

    assert not answer
    assert desk.outcomes == {}


async def test_a_stop_writes_what_is_left(desk: FakeDesk, events: Events) -> None:
    jobs = [started_job() for _ in range(3)]
    recorder = Recorder(desk, lease_seconds=30, bus=events.bus)
    answers = asyncio.ensure_future(record_all(recorder, *jobs))
    await asyncio.sleep(0)

    recorder.stop(within_seconds=20)
    await asyncio.wait_for(recorder.run(), 20)

    assert await answers == [True] * 3


async def test_a_stop_during_an_outage_waits_no_longer_than_told(
    desk: FakeDesk, events: Events
) -> None:
    desk.away = True
    recorder = Recorder(desk, lease_seconds=3_600, bus=events.bus)
    running = asyncio.ensure_future(recorder.run())
    answer = asyncio.ensure_future(record(recorder, started_job()))
    await until(lambda: desk.tries)

    recorder.stop(within_seconds=0.02)

    await asyncio.wait_for(running, 20)
    assert not await answer


async def test_an_outcome_that_comes_after_the_end_is_answered(
    desk: FakeDesk, events: Events
) -> None:
    async with recording(desk, events) as recorder:
        pass

    assert not await record(recorder, started_job())


@pytest.mark.parametrize(
    ("delay_seconds", "topics"), [(0.0, ["mail"]), (5.0, [""]), (61.0, [])], ids=str
)
async def test_a_job_that_comes_back_soon_is_hinted_at(
    desk: FakeDesk, events: Events, delay_seconds: float, topics: list[str]
) -> None:
    outcome = replace(RETRIED, delay_seconds=delay_seconds)
    async with recording(desk, events) as recorder:
        await record(recorder, started_job(), outcome)

    assert desk.hints == topics


async def test_a_finished_job_is_not_hinted_at(desk: FakeDesk, events: Events) -> None:
    async with recording(desk, events) as recorder:
        await record(recorder, started_job())

    assert desk.hints == []


async def test_a_result_that_postgresql_refuses_costs_only_its_own_job(
    store: JobStore, jobs: JobFactory, events: Events
) -> None:
    """With the real table: a result that got past our checks and cannot enter jsonb."""
    running = [await jobs.running() for _ in range(3)]
    bad: dict[str, Any] = {"result_json": '"\\u0000"'}
    outcomes: list[Outcome] = [SUCCEEDED, replace(SUCCEEDED, **bad), SUCCEEDED]
    async with recording(store, events) as recorder:
        pairs = zip(running, outcomes, strict=True)
        answers = await asyncio.gather(*[record(recorder, *pair) for pair in pairs])

    assert answers == [True, False, True]
    statuses = [(await jobs.row(job)).status for job in running]
    assert statuses == [JobStatus.SUCCEEDED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
