"""An attempt that is interrupted: by an operator, by a lost lease, by the end of its worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from moving_parts import Events, until

from async_jobs.core.outcome import Interruption, Outcome
from async_jobs.models import JobContext, JobStatus, StartedJob
from async_jobs.telemetry.events import (
    LeaseLost,
)

from .conftest import MakeAttempt, Record, outcome_of, raising


class Held:
    """A handler that holds until it is interrupted, and what it then does."""

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self.entered = asyncio.Event()
        self.interruptions = 0
        self._then = then

    async def __call__(self, ctx: JobContext, payload: dict[str, Any]) -> object:
        self.entered.set()
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            self.interruptions += 1
            if self._then is None:
                raise
            return self._then()
        return "never"


@pytest.mark.parametrize(
    ("why", "status", "gives_back"),
    [
        (Interruption.CANCELLED, JobStatus.CANCELLED, False),
        (Interruption.STOPPING, JobStatus.PENDING, True),
    ],
)
async def test_an_interruption_decides_the_outcome(
    make_attempt: MakeAttempt, why: Interruption, status: JobStatus, gives_back: bool
) -> None:
    held = Held()
    attempt = make_attempt(held)
    running = asyncio.ensure_future(outcome_of(attempt))
    await held.entered.wait()

    attempt.interrupt(why)

    outcome = await running
    assert outcome is not None
    assert (outcome.status, outcome.gives_attempt_back) == (status, gives_back)


async def test_a_lost_lease_drops_the_outcome(
    make_attempt: MakeAttempt, record: Record, events: Events
) -> None:
    held = Held()
    attempt = make_attempt(held)
    running = asyncio.ensure_future(outcome_of(attempt))
    await held.entered.wait()

    attempt.interrupt(None)

    assert await running is None
    assert (record.outcomes, events.names()) == ([], ["LeaseLost"])


async def test_an_outcome_that_was_not_recorded_is_told_as_a_lost_lease(
    make_attempt: MakeAttempt, record: Record, events: Events
) -> None:
    record.takes_effect = False

    assert await outcome_of(make_attempt(raising(ValueError()))) is None
    assert len(events.of(LeaseLost)) == 1


@pytest.mark.parametrize("why", [Interruption.CANCELLED, Interruption.STOPPING, None])
async def test_an_attempt_interrupted_before_it_began_does_not_run_its_handler(
    make_attempt: MakeAttempt, why: Interruption | None
) -> None:
    held = Held()
    attempt = make_attempt(held)

    attempt.interrupt(why)
    await outcome_of(attempt)

    assert not held.entered.is_set()


async def test_a_handler_is_interrupted_once_for_each_reason(make_attempt: MakeAttempt) -> None:
    """Every heartbeat tells of a cancel again; a handler that ends in order needs its time."""
    ended_in_order = asyncio.Event()

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        entered.set()
        try:
            await asyncio.sleep(3_600)
        finally:
            ending.set()
            await asyncio.sleep(0.02)
            ended_in_order.set()

    entered, ending = asyncio.Event(), asyncio.Event()
    attempt = make_attempt(handler)
    running = asyncio.ensure_future(outcome_of(attempt))
    await entered.wait()
    attempt.interrupt(Interruption.CANCELLED)
    await ending.wait()

    for _ in range(3):
        attempt.interrupt(Interruption.CANCELLED)
        await asyncio.sleep(0)

    outcome = await running
    assert outcome is not None
    assert (outcome.status, ended_in_order.is_set()) == (JobStatus.CANCELLED, True)


async def test_a_handler_that_finishes_in_spite_of_its_interruption_has_finished(
    make_attempt: MakeAttempt,
) -> None:
    held = Held(then=lambda: "done anyway")
    attempt = make_attempt(held)
    running = asyncio.ensure_future(outcome_of(attempt))
    await held.entered.wait()

    attempt.interrupt(Interruption.STOPPING)

    outcome = await running
    assert outcome is not None
    assert (outcome.status, outcome.result_json) == (JobStatus.SUCCEEDED, '"done anyway"')


async def test_an_interruption_after_the_handler_changes_nothing(
    make_attempt: MakeAttempt,
) -> None:
    told: list[Callable[[bool], None]] = []

    def later(job: StartedJob, outcome: Outcome, tell: Callable[[bool], None]) -> None:
        told.append(tell)

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> str:
        return "done"

    attempt = make_attempt(handler)
    attempt._record = later
    await attempt.run()

    for why in (Interruption.STOPPING, Interruption.CANCELLED, None):
        attempt.interrupt(why)
    await asyncio.sleep(0)
    assert attempt.outcome is None
    told[0](True)

    assert attempt.outcome is not None
    assert attempt.outcome.status == JobStatus.SUCCEEDED


async def test_a_cancelled_job_stays_cancelled_when_the_worker_stops_too(
    make_attempt: MakeAttempt,
) -> None:
    held = Held()
    attempt = make_attempt(held)
    running = asyncio.ensure_future(outcome_of(attempt))
    await held.entered.wait()

    attempt.interrupt(Interruption.STOPPING)
    attempt.interrupt(Interruption.CANCELLED)

    outcome = await running
    assert outcome is not None
    assert outcome.status == JobStatus.CANCELLED


async def test_a_task_that_a_handler_leaves_behind_does_not_change_its_outcome(
    make_attempt: MakeAttempt,
) -> None:
    tasks = []

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> str:
        tasks.append(asyncio.ensure_future(asyncio.sleep(3_600)))
        return "done"

    outcome = await outcome_of(make_attempt(handler))

    assert outcome is not None
    assert outcome.status == JobStatus.SUCCEEDED
    tasks[0].cancel()
    await until(tasks[0].done)
