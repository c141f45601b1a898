"""One trace from the caller's span to the outcome: spans at every stop of a job.

    enqueue     the producer's call, under its span or under the `traceparent` of its request;
                the context of this span is stored with the job
    lease, send       the scheduler, for each job that has a context
    receive, start    the worker, likewise
    process           one attempt, from its start until its outcome is recorded; in it
        run           the handler: spans of its own code and libraries lie below
        settle        the wait for the statement that records the outcome

Everything from lease on is a child of enqueue. An attempt links to the one before it, which failed,
snoozed or was released and left its context in `trace_context`; after a worker was lost, to the
last one that did.

Nothing here loads OpenTelemetry. Spans are made where the process has set up a tracer provider
(or given one to `use_provider`); elsewhere each stop costs a look-up, and a context that came with
a request is still stored, so that a worker can go on with the trace. A tracer that fails is told
to the log and never hurts a job.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import Outcome
from async_jobs.models import AcceptedJob, JobStatus, Leased, StartedJob
from async_jobs.telemetry.trace_context import caller, carrier_of, links_to, parent_context

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

NAME = "async_jobs"
LOOK_EVERY_SECONDS = 1.0
"""How often a process that has no tracer provider looks for one: asking takes 2 µs."""

Answer = TypeVar("Answer")

_log = logging.getLogger("async_jobs.telemetry")
_NOTHING = nullcontext()
_chosen: list[TracerProvider] = []
_made: list[tuple[TracerProvider, Tracer]] = []
_look_again_at = [0.0]


def use_provider(provider: TracerProvider | None) -> None:
    """Make spans with *provider*, whatever the process-wide one is; None goes back to that."""
    _chosen[:] = [provider] if provider else []
    _look_again_at[0] = 0.0


def _tracer() -> Tracer | None:
    """Our tracer, if this process has a tracer provider."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    if time.monotonic() < _look_again_at[0]:
        return None
    provider = _chosen[0] if _chosen else api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider):
        _look_again_at[0] = time.monotonic() + LOOK_EVERY_SECONDS
        return None
    if not _made or _made[0][0] is not provider:
        _made[:] = [(provider, provider.get_tracer(NAME))]
    return _made[0][1]


def _harmless(function: Callable[..., Answer]) -> Callable[..., Answer | None]:
    """*function*, which gives None where the tracer fails."""

    @functools.wraps(function)
    def guarded(*given: Any, **named: Any) -> Answer | None:
        try:
            return function(*given, **named)
        except Exception:
            _log.exception("The tracer failed")
            return None

    return guarded


def headers() -> dict[bytes, bytes]:
    """What a request carries so that the server goes on with the present trace."""
    return {name.encode(): text.encode() for name, text in (_present() or {}).items()}


def context_to_store() -> str | None:
    """The present span's context, or that of the request we serve, as JSON for the row."""
    carrier = _present() or caller.get()
    return json.dumps(carrier) if carrier else None


@_harmless
def _present() -> dict[str, str] | None:
    if _tracer() is None:
        return None
    from opentelemetry import trace

    own = trace.get_current_span().get_span_context()
    return carrier_of(own) if own.is_valid else None


def enqueuing(jobs: Sequence[AcceptedJob]) -> AbstractContextManager[object]:
    """The producer's span around the store's call."""
    span = _enqueue_span(jobs) if jobs else None
    if span is None:
        return _NOTHING
    from opentelemetry import trace

    return trace.use_span(span, end_on_exit=True)


@_harmless
def _enqueue_span(jobs: Sequence[AcceptedJob]) -> Span | None:
    tracer = _tracer()
    if tracer is None:
        return None
    from opentelemetry import trace

    own = trace.get_current_span().get_span_context()
    return tracer.start_span(
        f"enqueue {jobs[0].queue}",
        context=None if own.is_valid else parent_context(caller.get()),
        kind=trace.SpanKind.PRODUCER,
        attributes=_enqueue_attributes(jobs),
    )


@_harmless
def leased(jobs: Iterable[Leased], use_case: str, *, since_ns: int) -> None:
    """The scheduler leased *jobs*; its turn began at *since_ns* (Unix time)."""
    if (tracer := _tracer()) is not None:
        for job in _traced(jobs):
            attributes = _leased_attributes(job, use_case, "lease")
            attributes["async_jobs.slack_seconds"] = job.slack_seconds
            _stop(tracer, "lease", job, attributes, since_ns).end()


@_harmless
def sent(
    jobs: Iterable[Leased], use_case: str, failed: Iterable[Leased], reason: str, *, since_ns: int
) -> None:
    """The scheduler sent *jobs* on their way, but for those that *failed*."""
    if (tracer := _tracer()) is not None:
        refused = {job.job_id for job in failed}
        for job in _traced(jobs):
            attributes = _leased_attributes(job, use_case, "send")
            span = _stop(tracer, "send", job, attributes, since_ns)
            if job.job_id in refused:
                _fail(span, "not_accepted", reason)
            span.end()


def received(jobs: Iterable[StartedJob], since_ns: Mapping[UUID, int]) -> None:
    """The messages of *jobs*, which are now started, came in at these times."""
    _worker_stop("receive", jobs, lambda job: since_ns[job.id])


def started(jobs: Iterable[StartedJob], *, since_ns: int) -> None:
    """*jobs* were started by a statement that was sent at *since_ns*."""
    _worker_stop("start", jobs, lambda job: since_ns)


@_harmless
def _worker_stop(operation: str, jobs: Iterable[StartedJob], since_ns: Any) -> None:
    if (tracer := _tracer()) is not None:
        for job in _traced(jobs):
            attributes = _started_attributes(job, operation)
            _stop(tracer, operation, job, attributes, since_ns(job)).end()


def process(job: StartedJob) -> Processing | None:
    """Begin the span of an attempt; None where there is nothing to trace with."""
    return _process(job) if "opentelemetry.trace" in sys.modules else None


@_harmless
def _process(job: StartedJob) -> Processing | None:
    tracer = _tracer()
    return None if tracer is None else Processing(tracer, job)


class Processing:
    """The span of one attempt: `around` the handler, then `judged`, then `recorded`."""

    def __init__(self, tracer: Tracer, job: StartedJob) -> None:
        from opentelemetry import trace

        carrier = json.loads(job.trace_context or "{}")
        attributes = _started_attributes(job, "process")
        attributes["async_jobs.lateness_seconds"] = job.lateness_seconds
        self._tracer = tracer
        self._name = job.type
        self._span = tracer.start_span(
            f"process {job.queue}",
            context=parent_context(carrier),
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=links_to(carrier.get("previous")),
        )
        self._settle: Span | None = None

    async def around(self, handling: Awaitable[Outcome]) -> Outcome:
        """Await *handling* with the span of the handler as the present one."""
        from opentelemetry import trace

        run = self._begin(f"run {self._name}")
        with trace.use_span(run or self._span, end_on_exit=False):
            outcome = await handling
        return self._judged(run, outcome) or outcome

    @_harmless
    def _begin(self, name: str) -> Span:
        from opentelemetry import trace

        return self._tracer.start_span(name, context=trace.set_span_in_context(self._span))

    @_harmless
    def _judged(self, run: Span | None, outcome: Outcome) -> Outcome:
        """The outcome with the attempt's context, for the next one's link and beside an error."""
        if run is not None:
            if outcome.move in _FAILURES and outcome.error is not None:
                _fail_as(run, outcome.error)
            run.end()
        self._settle = self._begin("settle")
        here = carrier_of(self._span.get_span_context())["traceparent"]
        if outcome.status is JobStatus.PENDING:
            outcome = replace(outcome, traceparent=here)
        if outcome.error is None:
            return outcome
        error = {**outcome.error, "traceparent": here}
        return replace(outcome, error=error, error_json=json.dumps(error))

    @_harmless
    def recorded(self, outcome: Outcome | None) -> None:
        """The outcome is on the row; None says that the lease was lost and it is not."""
        if self._settle is not None:
            self._settle.end()
        if outcome is None:
            _fail(self._span, "lease_lost", "the lease was lost, the outcome dropped")
        else:
            self._span.set_attribute("async_jobs.outcome", outcome.move.value)
            self._span.set_attribute("async_jobs.status", outcome.status.value)
            failed = outcome.status is JobStatus.DEAD or outcome.move in _FAILURES
            if failed and outcome.error is not None:
                _fail_as(self._span, outcome.error)
        self._span.end()


_FAILURES = (Move.RETRY, Move.BURY)


def _stop(
    tracer: Tracer,
    operation: str,
    job: Leased | StartedJob,
    attributes: Mapping[str, Any],
    since_ns: int,
) -> Span:
    """A stop of a traced job, which is over now."""
    from opentelemetry import trace

    kinds = {"send": trace.SpanKind.PRODUCER, "receive": trace.SpanKind.CONSUMER}
    return tracer.start_span(
        f"{operation} {job.queue}",
        context=parent_context(json.loads(job.trace_context or "{}")),
        kind=kinds.get(operation, trace.SpanKind.INTERNAL),
        attributes=attributes,
        start_time=min(since_ns, time.time_ns()),
    )


Traced = TypeVar("Traced", Leased, StartedJob)


def _traced(jobs: Iterable[Traced]) -> Iterator[Traced]:
    return (job for job in jobs if job.trace_context)


def _attributes(operation: str, queue: str, tenant_id: str, type: str) -> dict[str, Any]:
    return {
        "messaging.system": NAME,
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": _OPERATION_TYPES.get(operation, operation),
        "async_jobs.tenant_id": tenant_id,
        "async_jobs.type": type,
    }


_OPERATION_TYPES = {"enqueue": "create", "lease": "receive", "start": "receive"}
"""The names of OpenTelemetry's conventions for messaging where ours are others."""


def _enqueue_attributes(jobs: Sequence[AcceptedJob]) -> dict[str, Any]:
    first = jobs[0]
    found = _attributes("enqueue", first.queue, first.tenant_id, first.type)
    found["async_jobs.use_case"] = first.use_case
    if len(jobs) > 1:
        return {**found, "messaging.batch.message_count": len(jobs)}
    return {**found, "messaging.message.id": str(first.id)}


def _leased_attributes(job: Leased, use_case: str, operation: str) -> dict[str, Any]:
    return {
        **_attributes(operation, job.queue, job.tenant_id, job.type),
        "messaging.message.id": str(job.job_id),
        "async_jobs.use_case": use_case,
        "async_jobs.lease_seq": job.lease_seq,
    }


def _started_attributes(job: StartedJob, operation: str) -> dict[str, Any]:
    return {
        **_attributes(operation, job.queue, job.tenant_id, job.type),
        "messaging.message.id": str(job.id),
        "async_jobs.use_case": job.use_case,
        "async_jobs.lease_seq": job.lease_seq,
        "async_jobs.attempt": job.attempts,
    }


def _fail(span: Span, kind: str, text: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, text)


def _fail_as(span: Span, error: Mapping[str, Any]) -> None:
    kind, message = str(error.get("type", "Error")), str(error.get("message", ""))
    _fail(span, kind, message)
    facts = {"exception.type": kind, "exception.message": message}
    if trace := error.get("traceback"):
        facts["exception.stacktrace"] = str(trace)
    span.add_event("exception", facts)
