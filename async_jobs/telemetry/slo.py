"""Turns events into the counts of the SLO record; subscribe `SloListener.hear` to a Bus.

A few additions in memory for each event: no clock, no input or output.
"""

from __future__ import annotations

from async_jobs.core.slo import Measure, Slack, SloRecord
from async_jobs.telemetry import events as ev

_ENDS = (ev.JobSucceeded, ev.JobBuried, ev.JobCancelled)


class SloListener:
    """Counts what the schedulers and workers of this process do."""

    def __init__(self, record: SloRecord) -> None:
        self._record = record

    def hear(self, event: ev.Event) -> None:
        """Count *event* if it says something about a promise."""
        if isinstance(event, ev.JobsLeased):
            for slack in event.slacks:
                self._record.slack(Measure.LEASE, event.use_case, slack)
        elif isinstance(event, ev.JobStarted):
            self._started(event)
        elif isinstance(event, ev.JobEnded):
            self._ended(event)

    def _started(self, event: ev.JobStarted) -> None:
        if not event.is_first:
            return
        slack = Slack(event.tenant_id, -event.lateness_seconds, event.tolerance_seconds)
        self._record.slack(Measure.START, event.use_case, slack)
        if event.lateness_seconds > 0:
            self._record.seconds(
                Measure.LATENESS, event.use_case, event.tenant_id, event.lateness_seconds
            )

    def _ended(self, event: ev.JobEnded) -> None:
        if event.slack is None:
            return
        if isinstance(event, ev.JobEndedLate):
            self._ended_late(event, event.slack)
            return
        self._record.seconds(Measure.RUN, event.use_case, event.tenant_id, event.ran_seconds)
        if isinstance(event, _ENDS):
            self._record.slack(Measure.END, event.use_case, event.slack)

    def _ended_late(self, event: ev.JobEndedLate, slack: Slack) -> None:
        """Ended by a worker, its start was counted before; by a scheduler, there will be none."""
        if event.attempt == 0:
            self._record.slack(Measure.START, event.use_case, slack)
            self._record.seconds(
                Measure.LATENESS, event.use_case, event.tenant_id, event.late_by_seconds
            )
        self._record.slack(Measure.END, event.use_case, slack)
