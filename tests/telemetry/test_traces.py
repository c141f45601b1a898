"""One trace from the caller's span to the outcome, over the real API, scheduler and worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from jobs_api import TOKEN, caller
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from async_jobs import AsyncJobsHttpClient, Snooze
from async_jobs.models import JobContext, JobStatus
from async_jobs.registry import JobRegistry

from .conftest import Kept, OpenSystem, System

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = int(PARENT.split("-")[1], 16)
AT_ONCE = {"type": "constant", "base_delay_seconds": 0, "jitter": 0}
JOB: dict[str, Any] = {"tenant_id": "acme", "use_case": "mail", "payload": {}}


def registry_with(kept: Kept | None = None) -> JobRegistry:
    registry = JobRegistry()

    @registry.handler("greet")
    async def greet(ctx: JobContext, payload: dict[str, Any]) -> str:
        if kept is None:
            return "hello"
        with kept.tracer.start_as_current_span("inside of the handler"):
            return "hello"

    @registry.handler("flaky")
    def flaky(ctx: JobContext, payload: dict[str, Any]) -> None:
        if ctx.attempt == 1:
            raise ConnectionError("relay away")

    @registry.handler("chain")
    async def chain(ctx: JobContext, payload: dict[str, Any]) -> None:
        await ctx.enqueue("greet", {})

    return registry


def tree(spans: list[ReadableSpan]) -> dict[str, str]:
    """First word of each span's name → that of its parent's."""
    names = {span.context.span_id: span.name.split()[0] for span in spans if span.context}
    return {
        span.name.split()[0]: names.get(span.parent.span_id, "outside") if span.parent else "none"
        for span in spans
    }


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_one_trace_leads_from_the_callers_span_to_the_outcome(
    open_system: OpenSystem, kept: Kept
) -> None:
    async with open_system(registry_with(kept)) as system, _client(system) as client:
        with kept.tracer.start_as_current_span("checkout") as caller_span:
            job_id = await client.enqueue(type="greet", **JOB)
        await system.finished(job_id)
    spans = kept.spans()
    queue = kept.named("enqueue")[0].name.split()[1]
    on_sqs = queue != "mail"

    assert tree(spans) == {
        "checkout": "none",
        "enqueue": "checkout",
        "lease": "enqueue",
        **({"send": "enqueue", "receive": "enqueue"} if on_sqs else {}),
        "start": "enqueue",
        "process": "enqueue",
        "run": "process",
        "inside": "run",
        "settle": "process",
    }
    trace_ids = {span.context.trace_id for span in spans if span.context}
    assert trace_ids == {caller_span.get_span_context().trace_id}
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    [process] = kept.named("process")
    assert process.name == f"process {queue}"
    assert process.kind is SpanKind.CONSUMER
    assert (
        facts(process).items()
        >= {
            "messaging.system": "async_jobs",
            "messaging.destination.name": queue,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": str(job_id),
            "async_jobs.tenant_id": "acme",
            "async_jobs.use_case": "mail",
            "async_jobs.type": "greet",
            "async_jobs.attempt": 1,
            "async_jobs.lease_seq": 1,
            "async_jobs.outcome": "succeed",
            "async_jobs.status": "succeeded",
        }.items()
    )
    assert [facts(span)["messaging.message.id"] for span in kept.named("lease")] == [str(job_id)]
    assert all((span.end_time or 0) >= (span.start_time or 0) for span in spans)


async def test_a_retry_links_to_the_attempt_that_failed(
    open_system: OpenSystem, kept: Kept
) -> None:
    async with open_system(registry_with(kept)) as system:
        stored = await system.service.enqueue(type="flaky", backoff_policy=AT_ONCE, **JOB)
        job = await system.finished(stored.job_id)
    first, second = kept.named("process")

    assert job.status is JobStatus.SUCCEEDED
    assert first.status.status_code is StatusCode.ERROR
    assert (
        facts(first).items()
        >= {
            "error.type": "ConnectionError",
            "async_jobs.outcome": "retry",
        }.items()
    )
    assert [event.name for event in first.events] == ["exception"]
    assert "relay away" in str(first.events[0].attributes)
    assert second.status.status_code is StatusCode.UNSET
    assert first.links == ()
    assert [link.context.span_id for link in second.links] == [_id(first)]
    assert first.parent is not None
    assert second.parent == first.parent
    assert job.last_error is not None
    assert job.last_error["traceparent"].split("-")[2] == f"{_id(first):016x}"


async def test_an_attempt_after_a_snooze_links_to_the_one_that_snoozed(
    open_system: OpenSystem, kept: Kept
) -> None:
    """Failed, then snoozed, then done: each links to the one just before it."""
    snoozed = []
    registry = registry_with()

    @registry.handler("sleepy")
    async def sleepy(ctx: JobContext, payload: dict[str, Any]) -> None:
        if ctx.attempt == 1:
            raise ConnectionError("relay away")
        if not snoozed:
            snoozed.append(ctx.attempt)
            raise Snooze(0.01)

    async with open_system(registry) as system:
        stored = await system.service.enqueue(type="sleepy", backoff_policy=AT_ONCE, **JOB)
        job = await system.finished(stored.job_id)
    first, second, third = kept.named("process")

    assert job.status is JobStatus.SUCCEEDED
    assert [facts(span)["async_jobs.outcome"] for span in (first, second, third)] == [
        *("retry", "snooze", "succeed"),
    ]
    assert [link.context.span_id for link in second.links] == [_id(first)]
    assert [link.context.span_id for link in third.links] == [_id(second)]
    assert second.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("open_system", ["postgres"], indirect=True)
async def test_an_attempt_after_a_lost_worker_links_to_the_last_one_that_told(
    open_system: OpenSystem, kept: Kept, emptied_database: str
) -> None:
    hung, let_go = asyncio.Event(), asyncio.Event()
    registry = registry_with()

    @registry.handler("hangs")
    async def hangs(ctx: JobContext, payload: dict[str, Any]) -> None:
        if ctx.attempt == 1:
            raise ConnectionError("relay away")
        if ctx.attempt == 2:
            hung.set()
            await let_go.wait()

    async with open_system(registry) as system:
        stored = await system.service.enqueue(type="hangs", backoff_policy=AT_ONCE, **JOB)
        await hung.wait()
        async with await psycopg.AsyncConnection.connect(emptied_database) as conn:
            await conn.execute("UPDATE jobs SET lease_expires_at = now() - interval '1 s'")
        job = await system.finished(stored.job_id)
        let_go.set()
    first, lost, last = kept.named("process")

    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 3)
    assert job.last_error is not None
    assert job.last_error["type"] == "WorkerLost"
    assert facts(lost)["error.type"] == "lease_lost"
    assert [link.context.span_id for link in last.links] == [_id(first)]


async def test_a_job_enqueued_by_a_handler_goes_on_with_the_trace(
    open_system: OpenSystem, kept: Kept
) -> None:
    async with open_system(registry_with()) as system:
        stored = await system.service.enqueue(type="chain", **JOB)
        await system.finished(stored.job_id)
        [child] = (await system.service.list(limit=1)).jobs
        await system.finished(child.id)
    run, _ = kept.named("run")
    _, enqueue = kept.named("enqueue")

    assert enqueue.parent is not None
    assert enqueue.parent.span_id == _id(run)
    assert len({span.context.trace_id for span in kept.spans() if span.context}) == 1


async def test_the_traceparent_of_a_request_is_honoured(
    open_system: OpenSystem, kept: Kept
) -> None:
    async with open_system(registry_with()) as system, caller(system.app) as http:
        answer = await http.post(
            "/jobs/enqueue",
            json={**JOB, "type": "greet"},
            headers={"traceparent": PARENT, "tracestate": "vendor=1"},
        )
        await system.finished(answer.json()["job_id"])
    [enqueue], [process] = kept.named("enqueue"), kept.named("process")

    assert enqueue.context is not None
    assert enqueue.context.trace_id == TRACE_ID
    assert enqueue.parent is not None
    assert f"{enqueue.parent.span_id:016x}" == PARENT.split("-")[2]
    assert enqueue.context.trace_state.to_header() == "vendor=1"
    assert process.context is not None
    assert process.context.trace_id == TRACE_ID


@pytest.mark.parametrize("open_system", ["postgres"], indirect=True)
async def test_a_process_without_a_tracer_passes_the_context_of_a_request_on(
    open_system: OpenSystem,
) -> None:
    async with open_system(registry_with()) as system, caller(system.app) as http:
        answer = await http.post(
            "/jobs/enqueue", json={**JOB, "type": "greet"}, headers={"traceparent": PARENT}
        )
        job = await system.finished(answer.json()["job_id"])

    assert job.trace_context == {"traceparent": PARENT}


@pytest.mark.parametrize("open_system", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        PARENT + "-more",
        PARENT.upper(),
        "x" * 10_000,
    ],
)
async def test_a_traceparent_that_is_none_is_left_out(open_system: OpenSystem, parent: str) -> None:
    async with open_system(registry_with()) as system, caller(system.app) as http:
        answer = await http.post(
            "/jobs/enqueue", json={**JOB, "type": "greet"}, headers={"traceparent": parent}
        )
        job = await system.finished(answer.json()["job_id"])

    assert (answer.status_code, job.trace_context) == (201, None)


@pytest.mark.parametrize("open_system", ["postgres"], indirect=True)
@pytest.mark.parametrize("at", ["on_start", "on_end"])
async def test_a_tracer_that_fails_hurts_no_job(
    open_system: OpenSystem, kept: Kept, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        def _fail(self, *given: object) -> None:
            if given[0] is not None and "enqueue" not in str(getattr(given[0], "name", "")):
                raise RuntimeError("no room for spans")

        on_start = _fail if at == "on_start" else SpanProcessor.on_start
        on_end = _fail if at == "on_end" else SpanProcessor.on_end

    kept.provider.add_span_processor(Broken())
    async with open_system(registry_with()) as system:
        stored = await system.service.enqueue(type="flaky", backoff_policy=AT_ONCE, **JOB)
        job = await system.finished(stored.job_id)

    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 2)
    assert "The tracer failed" in caplog.text


def test_nothing_loads_opentelemetry_unless_somebody_does() -> None:
    code = """
import json, sys
from async_jobs.telemetry import traces
import async_jobs.worker.worker, async_jobs.scheduler.loop, async_jobs.assembly
assert traces.process(None) is None
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert json.loads(done.stdout) == []


def _client(system: System) -> AsyncJobsHttpClient:
    http = caller(system.app)
    del http.headers["Authorization"]
    return AsyncJobsHttpClient("http://localhost", TOKEN, http_client=http)


def _id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id
