"""One attempt: whatever a handler does, it ends as an outcome, and the worker goes on."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from moving_parts import Events, started_job, until

from async_jobs.core.outcome import Interruption, Outcome
from async_jobs.errors import Bury, Cancel, Retry, Snooze
from async_jobs.models import JobContext, JobStatus, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.telemetry.events import (
    JobBuried,
    JobCancelled,
    JobReleased,
    JobRetried,
    JobSnoozed,
    JobSucceeded,
    LeaseLost,
)
from async_jobs.telemetry.logs import JsonFormatter, TextFormatter
from async_jobs.worker.attempt import Attempt

from .conftest import FakeEnqueuer


@dataclass
class Record:
    """Keeps the outcome; `takes_effect` False stands for a lost lease."""

    takes_effect: bool = True
    outcomes: list[Outcome] = field(default_factory=list)

    async def __call__(self, job: StartedJob, outcome: Outcome) -> bool:
        self.outcomes.append(outcome)
        return self.takes_effect


MakeAttempt = Callable[..., Attempt]


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def make_attempt(
    registry: JobRegistry, record: Record, enqueuer: FakeEnqueuer, events: Events
) -> MakeAttempt:
    def make(handler: Callable[..., object] | None = None, **job: Any) -> Attempt:
        timeout_seconds = job.pop("timeout_seconds", None)
        if handler is not None:
            registry.handler("send", timeout_seconds=timeout_seconds)(handler)
        return Attempt(started_job(**job), registry, record, enqueuer=enqueuer, bus=events.bus)

    return make


def raising(error: BaseException) -> Callable[..., Any]:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        raise error

    return handler


async def test_a_handler_that_returns_succeeds_with_its_result(
    make_attempt: MakeAttempt, events: Events
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> dict[str, Any]:
        return {"sent to": payload["to"]}

    outcome = await make_attempt(handler).run()

    assert outcome is not None
    assert (outcome.status, outcome.result_json) == (JobStatus.SUCCEEDED, '{"sent to": "ada"}')
    assert [event.attempt for event in events.of(JobSucceeded)] == [1]


@pytest.mark.parametrize(
    ("error", "status", "event"),
    [
        (ValueError("boom"), JobStatus.PENDING, JobRetried),
        (Retry(5), JobStatus.PENDING, JobRetried),
        (Snooze(5), JobStatus.PENDING, JobSnoozed),
        (Cancel("no"), JobStatus.CANCELLED, JobCancelled),
        (Bury("no"), JobStatus.DEAD, JobBuried),
        (asyncio.CancelledError(), JobStatus.PENDING, JobRetried),
        (SystemExit(3), JobStatus.PENDING, JobRetried),
        (KeyboardInterrupt(), JobStatus.PENDING, JobRetried),
        (GeneratorExit(), JobStatus.PENDING, JobRetried),
        (BaseExceptionGroup("two", [SystemExit(1), ValueError()]), JobStatus.PENDING, JobRetried),
        (TimeoutError("of its own"), JobStatus.PENDING, JobRetried),
        (MemoryError(), JobStatus.PENDING, JobRetried),
        (RecursionError("too deep"), JobStatus.PENDING, JobRetried),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
async def test_whatever_a_handler_raises_is_an_outcome(
    make_attempt: MakeAttempt,
    events: Events,
    error: BaseException,
    status: JobStatus,
    event: type[JobRetried],
) -> None:
    outcome = await make_attempt(raising(error)).run()

    assert outcome is not None
    assert outcome.status == status
    assert [type(one) for one in events.seen] == [event]


async def test_a_time_out_of_the_handlers_own_keeps_its_words(make_attempt: MakeAttempt) -> None:
    outcome = await make_attempt(raising(TimeoutError("of its own")), timeout_seconds=600).run()

    assert outcome is not None
    assert (outcome.error or {})["message"] == "of its own"


async def test_the_last_attempt_that_fails_leaves_the_job_dead(
    make_attempt: MakeAttempt, events: Events
) -> None:
    outcome = await make_attempt(raising(SystemExit(1)), attempts=3, max_attempts=3).run()

    assert outcome is not None
    assert outcome.status == JobStatus.DEAD
    assert "SystemExit" in (outcome.error or {})["message"]


async def test_a_handler_that_takes_too_long_has_failed(
    make_attempt: MakeAttempt, events: Events
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        await asyncio.sleep(3_600)

    outcome = await asyncio.wait_for(make_attempt(handler, timeout_seconds=0.01).run(), 20)

    assert outcome is not None
    error = outcome.error or {}
    assert (outcome.status, outcome.gives_attempt_back) == (JobStatus.PENDING, False)
    assert (error["type"], error["message"]) == (
        "TimeoutError",
        "the handler took longer than its time-out of 0.01 s",
    )
    assert "in handler" in error["traceback"]
    assert len(events.of(JobRetried)) == 1


async def test_a_plain_handler_that_takes_too_long_has_failed(make_attempt: MakeAttempt) -> None:
    let_go = threading.Event()

    def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        let_go.wait(60)

    attempt = make_attempt(handler, timeout_seconds=0.01, attempts=3)
    outcome = await asyncio.wait_for(attempt.run(), 20)
    let_go.set()

    assert outcome is not None
    assert outcome.status == JobStatus.DEAD


async def test_a_handler_that_ends_in_order_after_its_time_out_keeps_its_result(
    make_attempt: MakeAttempt,
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> str:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            return "partial"
        return "whole"

    outcome = await make_attempt(handler, timeout_seconds=0.01).run()

    assert outcome is not None
    assert outcome.result_json == '"partial"'


async def test_a_type_nobody_handles_goes_back_with_its_attempt(
    make_attempt: MakeAttempt, events: Events
) -> None:
    """Another worker may know it; but not at once, or two workers would play ball with it."""
    outcome = await make_attempt(type="sned").run()

    assert outcome is not None
    assert (outcome.status, outcome.gives_attempt_back) == (JobStatus.PENDING, True)
    assert (outcome.delay_seconds or 0) >= 10
    assert (outcome.error or {})["type"] == "UnknownType"
    assert len(events.of(JobReleased)) == 1


async def test_a_plain_handler_runs_in_a_thread_with_the_attempts_context(
    make_attempt: MakeAttempt,
) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("from the attempt")
    seen = []

    def handler(ctx: JobContext, payload: dict[str, Any]) -> str:
        seen.append((threading.current_thread() is threading.main_thread(), variable.get()))
        variable.set("changed")
        return "done"

    outcome = await make_attempt(handler).run()

    assert outcome is not None
    assert (outcome.result_json, seen) == ('"done"', [(False, "from the attempt")])
    assert variable.get() == "from the attempt"


@pytest.mark.parametrize(
    "error", [ValueError(), StopIteration(), SystemExit(1), KeyboardInterrupt()], ids=repr
)
async def test_whatever_a_plain_handler_raises_is_an_outcome(
    make_attempt: MakeAttempt, error: BaseException
) -> None:
    def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        raise error

    outcome = await asyncio.wait_for(make_attempt(handler).run(), 20)

    assert outcome is not None
    assert outcome.status == JobStatus.PENDING
    assert outcome.error is not None


async def test_a_handler_knows_its_attempt(make_attempt: MakeAttempt) -> None:
    seen: list[JobContext] = []

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        seen.append(ctx)

    attempt = make_attempt(handler, attempts=2, lease_seq=7)
    await attempt.run()

    (ctx,), job = seen, attempt.job
    assert (ctx.job_id, ctx.tenant_id, ctx.use_case, ctx.type, ctx.queue) == (
        job.id,
        "acme",
        "mail",
        "send",
        "mail-queue",
    )
    assert (ctx.attempt, ctx.max_attempts, ctx.lease_seq) == (2, 3, 7)
    assert (ctx.run_at, ctx.deadline_at) == (job.run_at, job.deadline_at)


async def test_what_a_handler_enqueues_belongs_to_its_tenant_and_use_case(
    make_attempt: MakeAttempt, enqueuer: FakeEnqueuer
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        await ctx.enqueue("next", {"n": 1}, dedupe_key="once")

    await make_attempt(handler).run()

    (new,) = enqueuer.enqueued
    assert (new.tenant_id, new.use_case, new.type, new.payload, new.dedupe_key) == (
        "acme",
        "mail",
        "next",
        {"n": 1},
        "once",
    )


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_every_line_logged_inside_a_handler_carries_the_job(
    make_attempt: MakeAttempt, caplog: pytest.LogCaptureFixture, plain: bool
) -> None:
    """Of its own logger, of any other library, and of the context's."""
    lines: list[tuple[str, dict[str, Any]]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(
                (TextFormatter().format(record), json.loads(JsonFormatter().format(record)))
            )

    def log(ctx: JobContext) -> None:
        ctx.log.warning("of the context")
        logging.getLogger("another.library").warning("of a library")

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        log(ctx)

    def plain_handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        log(ctx)

    listener = Lines()
    logging.getLogger().addHandler(listener)
    try:
        attempt = make_attempt(plain_handler if plain else handler)
        await attempt.run()
    finally:
        logging.getLogger().removeHandler(listener)

    assert [text.endswith(f"[job {attempt.job.id}]") for text, _ in lines] == [True, True]
    assert [(line["tenant_id"], line["attempt"]) for _, line in lines] == [("acme", "1")] * 2


async def test_context_variables_of_one_handler_do_not_reach_the_next(
    make_attempt: MakeAttempt, registry: JobRegistry
) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen = []

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    for attempt in (make_attempt(handler), make_attempt()):
        await asyncio.ensure_future(attempt.run())

    assert seen == [0, 0]


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
    running = asyncio.ensure_future(attempt.run())
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
    running = asyncio.ensure_future(attempt.run())
    await held.entered.wait()

    attempt.interrupt(None)

    assert await running is None
    assert (record.outcomes, events.names()) == ([], ["LeaseLost"])


async def test_an_outcome_that_was_not_recorded_is_told_as_a_lost_lease(
    make_attempt: MakeAttempt, record: Record, events: Events
) -> None:
    record.takes_effect = False

    assert await make_attempt(raising(ValueError())).run() is None
    assert len(events.of(LeaseLost)) == 1


@pytest.mark.parametrize("why", [Interruption.CANCELLED, Interruption.STOPPING, None])
async def test_an_attempt_interrupted_before_it_began_does_not_run_its_handler(
    make_attempt: MakeAttempt, why: Interruption | None
) -> None:
    held = Held()
    attempt = make_attempt(held)

    attempt.interrupt(why)
    await attempt.run()

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
    running = asyncio.ensure_future(attempt.run())
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
    running = asyncio.ensure_future(attempt.run())
    await held.entered.wait()

    attempt.interrupt(Interruption.STOPPING)

    outcome = await running
    assert outcome is not None
    assert (outcome.status, outcome.result_json) == (JobStatus.SUCCEEDED, '"done anyway"')


async def test_an_interruption_after_the_handler_changes_nothing(
    make_attempt: MakeAttempt, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, go = asyncio.Event(), asyncio.Event()

    async def slow(job: StartedJob, outcome: Outcome) -> bool:
        recording.set()
        await go.wait()
        return True

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> str:
        return "done"

    attempt = make_attempt(handler)
    attempt._record = slow
    running = asyncio.ensure_future(attempt.run())
    await recording.wait()

    for why in (Interruption.STOPPING, Interruption.CANCELLED, None):
        attempt.interrupt(why)
    await asyncio.sleep(0)
    go.set()

    outcome = await running
    assert outcome is not None
    assert outcome.status == JobStatus.SUCCEEDED


async def test_a_cancelled_job_stays_cancelled_when_the_worker_stops_too(
    make_attempt: MakeAttempt,
) -> None:
    held = Held()
    attempt = make_attempt(held)
    running = asyncio.ensure_future(attempt.run())
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

    outcome = await make_attempt(handler).run()

    assert outcome is not None
    assert outcome.status == JobStatus.SUCCEEDED
    tasks[0].cancel()
    await until(tasks[0].done)
