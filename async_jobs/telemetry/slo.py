"""Turns events into the counts of the SLO record; subscribe `SloListener.hear` to a Bus.

A few additions in memory for each event: no clock, no input or output.
"""

from __future__ import annotations

from async_jobs.core.slo import Slack, SloRecord
from async_jobs.telemetry import events as ev

_ENDS = (ev.JobSucceeded, ev.JobBuried, ev.JobCancelled, ev.JobEndedLate)


class SloListener:
    """Counts what the schedulers and workers of this process do."""

    def __init__(self, record: SloRecord) -> None:
        self._record = record

    def hear(self, event: ev.Event) -> None:
        """Count *event* if it says something about a promise."""
        if isinstance(event, ev.JobStarted):
            self._started(event)
        elif isinstance(event, ev.JobEnded):
            self._ended(event)
        elif isinstance(event, ev.JobsLeased):
            self._record.leased(event.use_case, event.slacks)

    def _started(self, event: ev.JobStarted) -> None:
        if event.is_first:
            slack = Slack(event.tenant_id, -event.lateness_seconds, event.tolerance_seconds)
            self._record.started(event.use_case, slack)

    def _ended(self, event: ev.JobEnded) -> None:
        slack = event.slack
        if slack is None:
            return
        ran_seconds: float | None = event.ran_seconds
        if isinstance(event, ev.JobEndedLate):
            ran_seconds = None
            if event.attempt == 0:
                # Ended by a scheduler, it never started; by a worker, the start was counted.
                self._record.started(event.use_case, slack)
        finished = isinstance(event, _ENDS)
        self._record.ended(event.use_case, slack, ran_seconds=ran_seconds, finished=finished)
