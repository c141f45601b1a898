"""Every log line's wording: events in, one line out. Also how the commands format lines.

The library itself configures nothing: its loggers are `async_jobs.*`, and what
becomes of the records is the application's choice. Only the command line calls
`configure`. Text that came from outside is escaped and capped, so that one record
is always one line, tracebacks included, and no terminal obeys it.

Lines logged while a handler runs say for which job: by whatever logger, in its
tasks and in the thread of a plain function. A context variable holds the job;
`JobFields` puts it on each record, in the thread that logs, so that it is still
there where a queue hands records to another thread.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from async_jobs.core.lateness import MISSED
from async_jobs.core.record import safe_text
from async_jobs.models import StartedJob
from async_jobs.telemetry import events as ev

_log = logging.getLogger("async_jobs")
_DEBUG, _INFO, _WARNING, _ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

current_job: ContextVar[StartedJob | None] = ContextVar("async_jobs_current_job", default=None)
"""The job whose handler runs here; lines logged inside a handler carry it."""

Fields = dict[str, str | int]

MOST_OF_MESSAGE = 2_000
MOST_OF_TRACEBACK = 8_000
_NUMBERS = (bool, int, float, type(None))

_WORDING: dict[type[ev.Event], tuple[int, str]] = {
    ev.JobEnqueued: (_DEBUG, "enqueued"),
    ev.JobStarted: (_DEBUG, "started, {waited_seconds:.3f} s after it could run"),
    ev.JobSucceeded: (_INFO, "succeeded in {ran_seconds:.3f} s"),
    ev.JobRetried: (_WARNING, "failed, runs again in {delay_seconds:.1f} s: {error}"),
    ev.JobSnoozed: (_INFO, "snoozed for {delay_seconds:.1f} s"),
    ev.JobBuried: (_ERROR, "dead: {error}"),
    ev.JobCancelled: (_INFO, "cancelled: {error}"),
    ev.JobEndedLate: (
        _WARNING,
        "not run: its deadline passed {late_by_seconds:.3f} s before (dead: {dead})",
    ),
    ev.JobReleased: (_INFO, "given back: {error}"),
    ev.HandlerStuck: (
        _ERROR,
        "stuck: its handler was told to end and goes on after {ran_seconds:.1f} s; its slot is "
        "given to others",
    ),
    ev.StuckHandlerEnded: (_WARNING, "its stuck handler has ended after {ran_seconds:.1f} s"),
    ev.HandlerMissing: (_WARNING, "no handler for its type in this worker, given back"),
    ev.LeaseLost: (_WARNING, "outcome dropped: its lease was taken back while it ran"),
    ev.JobRescued: (_WARNING, "lost by worker {worker}, whose lease ran out (dead: {dead})"),
    ev.LeaseUnused: (_INFO, "not started by any worker before its lease ran out, leased again"),
    ev.JobRequeued: (_INFO, "requeued"),
    ev.OperatorActed: (_INFO, "{move} asked for by {actor}"),
    ev.JobsLeased: (
        _DEBUG,
        "leased in {use_case}: {sent} sent, {failed} not accepted, {in_flight} of {capacity} held",
    ),
    ev.PressureBegan: (_WARNING, "{use_case}: jobs are late, slots are shared out between tenants"),
    ev.PressureEnded: (
        _INFO,
        "{use_case}: no job is late any more, after {lasted_seconds:.1f} s; deadlines decide alone",
    ),
    ev.SendFailed: (_ERROR, "queue {queue} did not accept {messages} messages: {reason}"),
    ev.MessageDropped: (_WARNING, "queue {queue}: message removed: {reason}"),
    ev.JobsPruned: (_INFO, "pruned {jobs} finished jobs of {use_case}"),
    ev.BreakerOpened: (
        _WARNING,
        "{use_case}: {type} of tenant {tenant_id} is held back, {failed} of {ended} failed",
    ),
    ev.BreakerProbed: (_INFO, "{use_case}: {type} of tenant {tenant_id} is tried once"),
    ev.BreakerClosed: (
        _INFO,
        "{use_case}: {type} of tenant {tenant_id} goes again after {open_seconds:.0f} s",
    ),
    ev.CapacityLowered: (
        _WARNING,
        "{use_case}: backpressure, {capacity} of {full} slots from now on",
    ),
    ev.CapacityRestored: (_INFO, "{use_case}: all {capacity} slots again"),
    ev.OverloadRefused: (
        _WARNING,
        "{use_case} is overloaded: {jobs} jobs of tenant {tenant_id} refused, which is above its "
        "share; told to come back in {retry_after_seconds:.0f} s",
    ),
    ev.LoopFailed: (
        _ERROR,
        "{loop} failed ({failures} in a row), again in {retry_in_seconds:.1f} s: {error!r}",
    ),
    ev.LoopRecovered: (_INFO, "{loop} works again after {failures} failures"),
    ev.ProcessStarted: (_INFO, "{role} {name} ready: {detail}"),
    ev.ProcessStopping: (_INFO, "{role} {name} stopping, {running} attempts running"),
    ev.ProcessStopped: (_INFO, "{role} {name} stopped"),
    ev.ProcessLeft: (
        _WARNING,
        "{role} {name} leaves with work unfinished, its time to stop is over; leases run out and "
        "their jobs run again",
    ),
    ev.ProcessGaveUp: (
        _ERROR,
        "{role} {name} gives up and exits, so that it can be replaced; it could not work {reason}",
    ),
    ev.EventLoopBlocked: (_WARNING, "event loop blocked {blocked_seconds:.1f} s by {by}"),
    ev.HealthServed: (_INFO, "health checks at {place}"),
}

_UNSAID = ("slack", "slacks")
"""Figures for counting, one for each job of a pass; too many for a line."""


def job_labels(job: StartedJob) -> Fields:
    """What a line logged by the handler of *job* says about it."""
    return {
        "job_id": str(job.id),
        "tenant_id": job.tenant_id,
        "use_case": job.use_case,
        "type": job.type,
        "attempt": job.attempts,
    }


def log_event(event: ev.Event) -> None:
    """The listener that writes log lines; subscribe it to a Bus."""
    level, wording = _WORDING[type(event)]
    if not _log.isEnabledFor(level):
        return
    facts = {
        spec.name: getattr(event, spec.name) for spec in fields(event) if spec.name not in _UNSAID
    }
    if isinstance(event, ev.JobEvent):
        facts["error"] = _one_line_error(facts.get("error"))
        text = f"job {event.job_id} ({event.type}, tenant {event.tenant_id}, "
        text += f"attempt {event.attempt}) {wording.format(**facts)}"
    else:
        text = wording.format(**facts)
    _log.log(level, "%s", text, extra={"event": type(event).__name__, "facts": facts})


def _one_line_error(error: dict[str, Any] | None) -> str:
    if not error:
        return "no error"
    text = f"{error.get('type', 'Error')}: {error.get('message', '')}"
    late = error.get("late_by_seconds")
    if not late or error.get("type") == MISSED:
        return text
    return f"{text} (which is {late:.1f} s after the promised deadline)"


def escape(text: str, most: int = MOST_OF_MESSAGE) -> str:
    """*text* as one printable line: control characters become their escapes."""
    text = safe_text(text, most)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class JobFields(logging.Filter):
    """Gives every record a `job`: the fields of the job whose handler logs it, or None.

    Add it to a handler of your own, before one that formats in another thread.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "job"):
            record.job = _current()
        return True


class TextFormatter(logging.Formatter):
    """`12:00:01.234 INFO    message  [job ..., tenant ..., use case ..., attempt ...]`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{at} {escape(record.levelname, 20):<7} {escape(_message(record))}"
        if (job := _job(record)) and not hasattr(record, "event"):
            line += "  [job {job_id}, tenant {tenant_id}, use case {use_case}, ".format(**job)
            line += f"attempt {job['attempt']}]"
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            trace = " | ".join(each.strip() for each in lines)
            line += f"  {escape(trace, MOST_OF_TRACEBACK)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line; characters that do not print are escaped in it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": safe_text(_message(record), MOST_OF_MESSAGE),
            **(_job(record) or {}),
        }
        if event := getattr(record, "event", None):
            line["event"] = event
            facts = record.__dict__["facts"]
            line |= {key: _plain(value) for key, value in facts.items() if value != ""}
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line["traceback"] = safe_text(trace, MOST_OF_TRACEBACK)
        text = json.dumps(line, default=str, ensure_ascii=False)
        if text.isprintable():
            return text
        # Only inside of strings can there be any.
        return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _message(record: logging.LogRecord) -> str:
    """What was logged; a wrong format in a handler costs its arguments, never the line."""
    try:
        return record.getMessage()
    except Exception as error:
        return f"{safe_text(record.msg, MOST_OF_MESSAGE)} ({type(error).__name__} in its arguments)"


def _current() -> Fields | None:
    job = current_job.get()
    return job_labels(job) if job else None


def _job(record: logging.LogRecord) -> Fields | None:
    job: Fields | None = record.__dict__["job"] if "job" in record.__dict__ else _current()
    return job


def _plain(value: object) -> object:
    return value if isinstance(value, _NUMBERS) else safe_text(value, MOST_OF_MESSAGE)


_FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "text": TextFormatter,
    "json": JsonFormatter,
}


def configure(level: str, *, log_format: str = "text") -> None:
    """Log to standard error; for the command line only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTERS[log_format]())
    handler.addFilter(JobFields())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("boto3", "botocore", "urllib3", "psycopg.pool"):
        logging.getLogger(chatty).setLevel(
            max(logging.WARNING, logging.getLevelName(level.upper()))
        )
