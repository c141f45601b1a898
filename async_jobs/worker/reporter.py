"""Tells schedulers what fails and what is overloaded, at most once a second.

What is worth telling is decided in `core/endings.py`: nothing, while all is well. A
report that does not reach the database is told with the next one; the outcomes
themselves do not depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from async_jobs.core.endings import Endings, FlowKey, Tally
from async_jobs.core.outcome import Outcome
from async_jobs.models import StartedJob

EVERY_SECONDS = 1.0


class ReportDesk(Protocol):
    """The store's moves that the reporter makes."""

    async def report_endings(self, endings: Endings, use_cases: Iterable[str]) -> set[FlowKey]: ...

    async def hint(self, topics: Sequence[str]) -> None: ...


class Reporter:
    """Counts the outcomes of one worker and reports them from a loop that calls `tick`."""

    def __init__(self, desk: ReportDesk) -> None:
        self._desk = desk
        self._tally = Tally()

    def count(self, job: StartedJob, outcome: Outcome) -> None:
        """An attempt ended like this."""
        if outcome.sign is not None:
            flow = FlowKey(job.use_case, job.tenant_id, job.type)
            self._tally.add(flow, outcome.sign, probe=job.probe)

    async def tick(self) -> float:
        """Report if there is something to report; seconds until the next time."""
        now = time.monotonic()
        use_cases = self._tally.use_cases
        endings = self._tally.take(at=now)
        if endings is None:
            return EVERY_SECONDS
        try:
            watched = await self._desk.report_endings(endings, use_cases)
        except BaseException:
            self._tally.put_back(endings)
            raise
        self._tally.told(endings, watched, at=now)
        if endings.use_cases_to_wake:
            await self._desk.hint(sorted(endings.use_cases_to_wake))
        return EVERY_SECONDS
