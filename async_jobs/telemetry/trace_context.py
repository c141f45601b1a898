"""The context of a trace as the W3C writes it, on its way through requests and rows.

`traceparent` and `tracestate`; what breaks the rules of the W3C's Trace Context is left out, as
they ask for. Nothing here loads OpenTelemetry before it is known to be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext

Carrier = Mapping[str, Any]

_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")
"""W3C Trace Context: 512 characters at least are to be passed on."""

caller: ContextVar[Carrier | None] = ContextVar("async_jobs_caller", default=None)
"""The context that came with the request we serve."""
_NOBODY = nullcontext()


def calling(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Inside, jobs are enqueued on behalf of the request with these *headers*."""
    parent = headers.get("traceparent", "").strip()
    if not _PARENT.fullmatch(parent):
        return _NOBODY
    return _called_by({"traceparent": parent} | _state(headers.get("tracestate", "")))


@contextmanager
def _called_by(carrier: Carrier) -> Iterator[None]:
    token = caller.set(carrier)
    try:
        yield
    finally:
        caller.reset(token)


def parent_context(carrier: Carrier | None) -> Context:
    """The remote parent that *carrier* names; an empty context, for a new trace, without one."""
    from opentelemetry import trace
    from opentelemetry.context import Context

    remote = _remote(carrier) if carrier else None
    if remote is None:
        return Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


def links_to(parent: object) -> list[Link]:
    """A link to the span that a `traceparent` names; none if it names none."""
    from opentelemetry.trace import Link

    remote = _remote({"traceparent": parent}) if parent else None
    return [Link(remote)] if remote else []


def _remote(carrier: Carrier) -> SpanContext | None:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    parent = str(carrier.get("traceparent", ""))
    if not _PARENT.fullmatch(parent):
        return None
    _, trace_id, span_id, flags = parent.split("-")
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([str(carrier.get("tracestate") or "")]),
    )


def carrier_of(context: SpanContext) -> dict[str, str]:
    """*context* as it travels."""
    flags = int(context.trace_flags)
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
    return {"traceparent": parent} | _state(context.trace_state.to_header())


def _state(text: str) -> dict[str, str]:
    return {"tracestate": text} if _STATE.fullmatch(text) else {}
