"""One attempt: whatever a handler does, it ends as an outcome, and the worker goes on."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from typing import Any

import pytest
from moving_parts import Events

from async_jobs.errors import Bury, Cancel, Retry, Snooze
from async_jobs.models import JobContext, JobStatus
from async_jobs.registry import JobRegistry
from async_jobs.telemetry.events import (
    HandlerMissing,
    JobBuried,
    JobCancelled,
    JobReleased,
    JobRetried,
    JobSnoozed,
    JobSucceeded,
)
from async_jobs.telemetry.logs import JsonFormatter, TextFormatter

from .conftest import FakeEnqueuer, MakeAttempt, outcome_of, raising


async def test_a_handler_that_returns_succeeds_with_its_result(
    make_attempt: MakeAttempt, events: Events
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> dict[str, Any]:
        return {"sent to": payload["to"]}

    outcome = await outcome_of(make_attempt(handler))

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
    outcome = await outcome_of(make_attempt(raising(error)))

    assert outcome is not None
    assert outcome.status == status
    assert [type(one) for one in events.seen] == [event]


async def test_a_time_out_of_the_handlers_own_keeps_its_words(make_attempt: MakeAttempt) -> None:
    outcome = await outcome_of(
        make_attempt(raising(TimeoutError("of its own")), timeout_seconds=600)
    )

    assert outcome is not None
    assert (outcome.error or {})["message"] == "of its own"


async def test_the_last_attempt_that_fails_leaves_the_job_dead(
    make_attempt: MakeAttempt, events: Events
) -> None:
    outcome = await outcome_of(make_attempt(raising(SystemExit(1)), attempts=3, max_attempts=3))

    assert outcome is not None
    assert outcome.status == JobStatus.DEAD
    assert "SystemExit" in (outcome.error or {})["message"]


async def test_a_handler_that_takes_too_long_has_failed(
    make_attempt: MakeAttempt, events: Events
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        await asyncio.sleep(3_600)

    outcome = await asyncio.wait_for(outcome_of(make_attempt(handler, timeout_seconds=0.01)), 20)

    assert outcome is not None
    error = outcome.error or {}
    assert (outcome.status, outcome.gives_attempt_back) == (JobStatus.PENDING, False)
    assert (error["type"], error["message"]) == (
        "TimeoutError",
        "the handler took longer than its time-out of 0.01 s",
    )
    assert "in handler" in error["traceback"]
    assert len(events.of(JobRetried)) == 1


async def test_a_handler_that_ends_in_order_after_its_time_out_keeps_its_result(
    make_attempt: MakeAttempt,
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> str:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            return "partial"
        return "whole"

    outcome = await outcome_of(make_attempt(handler, timeout_seconds=0.01))

    assert outcome is not None
    assert outcome.result_json == '"partial"'


async def test_a_type_nobody_handles_goes_back_with_its_attempt(
    make_attempt: MakeAttempt, events: Events
) -> None:
    """Another worker may know it; but not at once, or two workers would play ball with it."""
    outcome = await outcome_of(make_attempt(type="sned"))

    assert outcome is not None
    assert (outcome.status, outcome.gives_attempt_back) == (JobStatus.PENDING, True)
    assert 10 <= (outcome.delay_seconds or 0) <= 13
    assert (outcome.error or {})["type"] == "UnknownType"
    assert outcome.error_json is not None
    assert len(events.of(JobReleased)) == len(events.of(HandlerMissing)) == 1


async def test_a_failure_that_cannot_be_looked_at_is_recorded_all_the_same(
    make_attempt: MakeAttempt,
) -> None:
    class Sly(Retry):
        @property
        def after_seconds(self) -> float:
            raise LookupError("not for you")

        @after_seconds.setter
        def after_seconds(self, value: float) -> None:
            pass

    outcome = await outcome_of(make_attempt(raising(Sly(1.0))))

    assert outcome is not None
    assert (outcome.status, (outcome.error or {})["type"]) == (JobStatus.PENDING, "LookupError")


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

    outcome = await outcome_of(make_attempt(handler))

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

    outcome = await asyncio.wait_for(outcome_of(make_attempt(handler)), 20)

    assert outcome is not None
    assert outcome.status == JobStatus.PENDING
    assert outcome.error is not None


async def test_a_handler_knows_its_attempt(make_attempt: MakeAttempt) -> None:
    seen: list[JobContext] = []

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        seen.append(ctx)

    attempt = make_attempt(handler, attempts=2, lease_seq=7)
    await outcome_of(attempt)

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

    await outcome_of(make_attempt(handler))

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
        await outcome_of(attempt)
    finally:
        logging.getLogger().removeHandler(listener)

    told = f"[job {attempt.job.id}, tenant acme, use case mail, attempt 1]"
    assert [text.endswith(told) for text, _ in lines] == [True, True]
    assert [(line["tenant_id"], line["attempt"]) for _, line in lines] == [("acme", 1)] * 2


async def test_context_variables_of_one_handler_do_not_reach_the_next(
    make_attempt: MakeAttempt, registry: JobRegistry
) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen = []

    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    for attempt in (make_attempt(handler), make_attempt()):
        await asyncio.ensure_future(outcome_of(attempt))

    assert seen == [0, 0]


async def test_a_payload_that_cannot_be_read_buries_its_job(
    registry: JobRegistry, make_attempt: MakeAttempt, events: Events
) -> None:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        raise AssertionError("called")

    outcome = await outcome_of(make_attempt(handler, payload={}, unreadable="ValueError"))

    assert outcome is not None
    assert outcome.status is JobStatus.DEAD
    assert (outcome.error or {})["type"] == "UnreadablePayload"
    assert len(events.of(JobBuried)) == 1
