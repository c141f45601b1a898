"""Turns events into OpenTelemetry metrics, where the process has set up a meter provider.

`subscribe_if_configured` looks once, when a scheduler or worker has loaded what it runs. Without a
meter provider nothing is subscribed, nothing of OpenTelemetry is loaded, and no event costs
anything. Names and units follow OpenTelemetry's conventions. Tenants are a label only if
ASYNC_JOBS_SLO_BY_TENANT is on: every label multiplies the series.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from async_jobs.telemetry import events as ev
from async_jobs.telemetry.bus import Bus

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

NAME = "async_jobs"
_log = logging.getLogger("async_jobs.telemetry")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600)
SLACK_SECONDS = (-3600, -600, -60, -10, -1, 0, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14400)

COUNTERS = {
    "async_jobs.jobs": "Moves of jobs: enqueued, started, and how attempts ended.",
    "async_jobs.promises": "First starts, by whether they were in time.",
    "async_jobs.leases.lost": "Outcomes that were dropped because the lease had been taken back.",
    "async_jobs.jobs.rescued": "Jobs whose worker was lost.",
    "async_jobs.sends.failed": "Messages that a queue did not accept.",
    "async_jobs.loops.failed": "Passes of a loop that failed.",
    "async_jobs.enqueues.refused": "Jobs refused because of overload.",
    "async_jobs.tickets.void": (
        "Tickets that opened nothing: delivered twice, or their lease had been taken back."
    ),
    "async_jobs.sqs.requests": "Requests to SQS by operation, repeated ones too.",
}
HISTOGRAMS = {
    "async_jobs.wait": ("From the moment a job could run to its start.", SECONDS),
    "async_jobs.lateness": ("How long after its deadline an attempt started.", SECONDS),
    "async_jobs.run": ("How long attempts run.", SECONDS),
    "async_jobs.tick": ("How long the passes of a loop take.", SECONDS),
    "async_jobs.loop.lag": (
        "How long the event loop lets a call wait, asked twice a second.",
        SECONDS,
    ),
    "async_jobs.slack": ("Time left until the deadline when a job is leased.", SLACK_SECONDS),
}
GAUGES = {
    "async_jobs.in_flight": "Jobs of a use case in flight, after its last dispatch.",
    "async_jobs.capacity": "Its capacity then.",
    "async_jobs.oldest_due": "Seconds that the most urgent waiting job has been due.",
    "async_jobs.error_budget.left": "The part of the error budget of 30 days that is left.",
    "async_jobs.required_slots": "Slots that start every waiting job in time.",
    "async_jobs.workers.needed": "Workers that keep every promise of the next ten minutes.",
    "async_jobs.rows.dead": "Dead row versions of the table.",
}
"""The last five are of the whole system: each scheduler tells them, so take the largest."""

_ENDS: Mapping[type[ev.Event], str] = {
    ev.JobSucceeded: "succeeded",
    ev.JobRetried: "retried",
    ev.JobSnoozed: "snoozed",
    ev.JobBuried: "buried",
    ev.JobCancelled: "cancelled",
    ev.JobEndedLate: "ended_late",
    ev.JobReleased: "released",
}


def subscribe_if_configured(bus: Bus, *, by_tenant: bool = False) -> bool:
    """Have metrics made of what *bus* carries, if there is a meter provider; whether there is."""
    api: Any = sys.modules.get("opentelemetry.metrics")
    if api is None:
        return False
    provider = api.get_meter_provider()
    if type(provider).__name__ in ("_ProxyMeterProvider", "NoOpMeterProvider"):
        return False
    listener = MetricsListener(provider.get_meter(NAME), by_tenant=by_tenant)
    bus.subscribe(listener.hear)
    bus.measure = listener.measure
    return True


class MetricsListener:
    """Counts and measures on the instruments of one meter."""

    def __init__(self, meter: Meter, *, by_tenant: bool = False) -> None:
        self._by_tenant = by_tenant
        self._counters = {
            name: meter.create_counter(name, description=text) for name, text in COUNTERS.items()
        }
        self._histograms = {
            name: meter.create_histogram(
                name,
                unit="s",
                description=text,
                explicit_bucket_boundaries_advisory=[float(bound) for bound in bounds],
            )
            for name, (text, bounds) in HISTOGRAMS.items()
        }
        self._gauges = {
            name: meter.create_gauge(name, description=text) for name, text in GAUGES.items()
        }
        self._taken: Mapping[str, Callable[..., None]] = {
            **{name: each.add for name, each in self._counters.items()},
            **{name: each.record for name, each in self._histograms.items()},
            **{name: each.set for name, each in self._gauges.items()},
        }
        self._heard: Mapping[type[ev.Event], Callable[[Any], None]] = {
            ev.JobEnqueued: self._enqueued,
            ev.JobStarted: self._started,
            ev.JobsLeased: self._leased,
            ev.LeaseLost: lambda event: self._count("async_jobs.leases.lost", event),
            ev.JobRescued: lambda event: self._count("async_jobs.jobs.rescued", event),
            ev.SendFailed: self._send_failed,
            ev.LoopFailed: self._loop_failed,
            ev.OverloadRefused: lambda event: self._count(
                "async_jobs.enqueues.refused", event, event.jobs
            ),
            **dict.fromkeys(_ENDS, self._ended),
        }

    def hear(self, event: ev.Event) -> None:
        """Count *event* if it says something that is measured."""
        heard = self._heard.get(type(event))
        if heard is not None:
            heard(event)

    def measure(self, name: str, value: float, **labels: str) -> None:
        """Take a figure that no event carries."""
        try:
            self._taken[name](value, labels)
        except Exception:
            _log.exception("A meter failed on %s", name)

    def _labels(self, event: Any, **more: str) -> dict[str, str]:
        labels = {"use_case": event.use_case, **more}
        if self._by_tenant and hasattr(event, "tenant_id"):
            labels["tenant_id"] = event.tenant_id
        return labels

    def _count(self, name: str, event: Any, number: int = 1, **more: str) -> None:
        self._counters[name].add(number, self._labels(event, **more))

    def _enqueued(self, event: ev.JobEnqueued) -> None:
        move = "deduplicated" if event.deduplicated else "enqueued"
        self._count("async_jobs.jobs", event, move=move)

    def _started(self, event: ev.JobStarted) -> None:
        labels = self._labels(event)
        self._count("async_jobs.jobs", event, move="started")
        self._histograms["async_jobs.wait"].record(max(0.0, event.waited_seconds), labels)
        self._histograms["async_jobs.lateness"].record(max(0.0, event.lateness_seconds), labels)
        if event.is_first:
            kept = "no" if event.lateness_seconds > 0 else "yes"
            self._count("async_jobs.promises", event, kept=kept)

    def _ended(self, event: ev.JobEnded) -> None:
        self._count("async_jobs.jobs", event, move=_ENDS[type(event)])
        if event.ran_seconds:
            self._histograms["async_jobs.run"].record(event.ran_seconds, self._labels(event))

    def _leased(self, event: ev.JobsLeased) -> None:
        labels = self._labels(event)
        self._gauges["async_jobs.in_flight"].set(event.in_flight, labels)
        self._gauges["async_jobs.capacity"].set(event.capacity, labels)
        for slack in event.slacks:
            self._histograms["async_jobs.slack"].record(slack.slack_seconds, labels)

    def _send_failed(self, event: ev.SendFailed) -> None:
        self._counters["async_jobs.sends.failed"].add(event.messages, {"queue": event.queue})

    def _loop_failed(self, event: ev.LoopFailed) -> None:
        self._counters["async_jobs.loops.failed"].add(1, {"loop": event.loop})
