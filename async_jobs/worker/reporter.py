"""Tells schedulers what fails and what is overloaded, at most once a second.

What is worth telling is decided in `core/endings.py`: nothing, while all is well. A
report that does not reach the database is told with the next one; the outcomes
themselves do not depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from async_jobs.core.endings import Endings, FlowKey, Tally
from async_jobs.core.outcome import Outcome
from async_jobs.models import StartedJob

EVERY_SECONDS = 1.0
UNTIL_WOKEN_SECONDS = 3_600.0


class ReportDesk(Protocol):
    """The store's moves that the reporter makes."""

    async def report_endings(self, endings: Endings, use_cases: Iterable[str]) -> set[FlowKey]: ...

    async def hint(self, topics: Sequence[str]) -> None: ...


class Reporter:
    """Counts the outcomes of one worker and reports them from a loop that calls `tick`.

    *wake* is called when there is something to look at again, and ends that loop's sleep.
    """

    def __init__(self, desk: ReportDesk, wake: Callable[[], None] = lambda: None) -> None:
        self._desk = desk
        self._wake = wake
        self._tally = Tally()
        self._next_at = 0.0

    def count(self, job: StartedJob, outcome: Outcome) -> None:
        """An attempt ended like this."""
        if outcome.sign is not None:
            if self._tally.is_empty:
                self._wake()
            flow = FlowKey(job.use_case, job.tenant_id, job.type)
            self._tally.add(flow, outcome.sign, probe=job.probe)

    async def tick(self) -> float:
        """Report if there is something to report; seconds until the next time."""
        now = time.monotonic()
        if self._tally.is_empty:
            return UNTIL_WOKEN_SECONDS
        if now < self._next_at:
            return self._next_at - now
        self._next_at = now + EVERY_SECONDS
        use_cases = self._tally.use_cases
        endings = self._tally.take(at=now)
        if endings is None:
            return EVERY_SECONDS
        try:
            watched = await self._desk.report_endings(endings, use_cases)
        except BaseException:
            self._next_at = 0.0
            self._tally.put_back(endings)
            raise
        self._tally.told(endings, watched, at=now)
        if endings.use_cases_to_wake:
            await self._desk.hint(sorted(endings.use_cases_to_wake))
        return EVERY_SECONDS
