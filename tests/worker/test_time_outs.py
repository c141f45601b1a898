"""Time-outs of types and of jobs, and handlers that go on after they were told to end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from moving_parts import Events, started_job, until

from async_jobs.core.outcome import Interruption
from async_jobs.models import JobContext, JobStatus
from async_jobs.registry import JobRegistry
from async_jobs.runtime.health import Health
from async_jobs.telemetry.events import (
    HandlerStuck,
    JobCancelled,
    JobRetried,
    LeaseLost,
    StuckHandlerEnded,
)
from async_jobs.worker import attempt as attempt_module
from async_jobs.worker.attempt import Attempt

from .conftest import FakeDesk, FakeReceiver, Handler, MakeAttempt, MakeWorker, Record, outcome_of


@pytest.fixture(autouse=True)
def stuck_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "STUCK_AFTER_SECONDS", 0.02)


@pytest.fixture
def stubborn() -> Handler:
    return Handler(stubborn=True)


@asynccontextmanager
async def running(attempt: Attempt, stubborn: Handler) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(attempt.run())
    await until(lambda: stubborn.running)
    yield task
    stubborn.let_go.set()
    await asyncio.wait_for(task, 20)


@pytest.mark.parametrize(
    ("of_type", "of_job", "limit"), [(600, 0.01, "0.01"), (0.02, 600, "0.02"), (None, 0.03, "0.03")]
)
async def test_the_shorter_time_out_of_type_and_job_counts(
    make_attempt: MakeAttempt, of_type: float | None, of_job: float, limit: str
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        await asyncio.sleep(3_600)

    attempt = make_attempt(handler, timeout_seconds=of_type, job_timeout_seconds=of_job)
    outcome = await asyncio.wait_for(outcome_of(attempt), 20)

    assert outcome is not None
    assert (outcome.error or {})["message"].endswith(f"longer than its time-out of {limit} s")


@pytest.mark.parametrize("of_job", [0.0, -1.0, float("nan")])
async def test_a_time_out_written_past_our_checks_is_none(
    make_attempt: MakeAttempt, of_job: float
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> str:
        await asyncio.sleep(0.05)
        return "done"

    outcome = await outcome_of(make_attempt(handler, job_timeout_seconds=of_job))

    assert outcome is not None
    assert outcome.status is JobStatus.SUCCEEDED


async def test_a_handler_that_ignores_its_time_out_has_failed_all_the_same_and_is_told_stuck(
    make_attempt: MakeAttempt, stubborn: Handler, record: Record, events: Events
) -> None:
    async with running(make_attempt(stubborn, timeout_seconds=0.01), stubborn) as task:
        await until(lambda: record.outcomes)

        assert record.outcomes[0].status is JobStatus.PENDING
        assert "time-out of 0.01 s" in (record.outcomes[0].error or {})["message"]
        assert [event.type for event in events.of(HandlerStuck)] == ["send"]
        assert not task.done()
        assert stubborn.running == 1

    assert len(record.outcomes) == len(events.of(JobRetried)) == 1
    assert len(events.of(StuckHandlerEnded)) == 1


async def test_a_handler_that_ignores_a_cancel_is_cancelled_all_the_same(
    make_attempt: MakeAttempt, stubborn: Handler, record: Record, events: Events
) -> None:
    attempt = make_attempt(stubborn)
    async with running(attempt, stubborn):
        attempt.interrupt(Interruption.CANCELLED)
        await until(lambda: record.outcomes)

    assert record.outcomes[0].status is JobStatus.CANCELLED
    assert len(events.of(JobCancelled)) == 1


async def test_a_stuck_handler_whose_lease_is_lost_writes_nothing(
    make_attempt: MakeAttempt, stubborn: Handler, record: Record, events: Events
) -> None:
    attempt = make_attempt(stubborn)
    async with running(attempt, stubborn):
        attempt.interrupt(None)
        await until(lambda: events.of(LeaseLost))

    assert record.outcomes == []


async def test_a_plain_handler_that_goes_on_in_its_thread_is_told_stuck(
    make_attempt: MakeAttempt, record: Record, events: Events
) -> None:
    let_go = threading.Event()

    def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        let_go.wait(60)

    task = asyncio.ensure_future(make_attempt(handler, timeout_seconds=0.01).run())
    await until(lambda: record.outcomes)
    assert len(events.of(HandlerStuck)) == 1
    assert not task.done()
    let_go.set()
    await asyncio.wait_for(task, 20)

    assert len(events.of(StuckHandlerEnded)) == 1


async def test_a_handler_that_ends_in_time_after_its_interruption_is_not_stuck(
    make_attempt: MakeAttempt, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "STUCK_AFTER_SECONDS", 0.0)

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        await asyncio.sleep(3_600)

    await outcome_of(make_attempt(handler, timeout_seconds=0.01))
    await asyncio.sleep(0.01)

    assert events.of(HandlerStuck) == []


async def test_the_slot_of_a_stuck_handler_is_free_and_too_many_of_them_make_unwell(
    make_worker: MakeWorker,
    receiver: FakeReceiver,
    registry: JobRegistry,
    desk: FakeDesk,
    stubborn: Handler,
) -> None:
    async def at_once(ctx: JobContext, payload: dict[str, Any]) -> str:
        return "done"

    registry.handler("stubborn", timeout_seconds=0.01)(stubborn)
    registry.handler("send")(at_once)
    health = Health(interval_seconds=1.0, give_up_seconds=0.0)
    worker = make_worker(concurrency=1)
    worker.tell(health)
    task = asyncio.ensure_future(worker.run())
    first, second = started_job(type="stubborn", max_attempts=1), started_job()
    receiver.put(first)
    receiver.put(second)
    await until(lambda: second.id in desk.outcomes)

    assert desk.outcomes[first.id].status is JobStatus.DEAD
    assert health.faults() == ["1 handlers are stuck"]

    worker.stop(grace_seconds=3_600)
    await asyncio.wait_for(task, 20)
    stubborn.let_go.set()
    await until(lambda: stubborn.running == 0)
