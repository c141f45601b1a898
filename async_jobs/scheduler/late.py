"""A use case that does not run late jobs has those that wait ended in the scheduler's turn.

Nothing is asked of the table while no job is late, and a pass ends a bounded number; the
events are told once the turn has committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from async_jobs.models import JobStatus, OnLate
from async_jobs.store.late import EndedLate
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import JobEndedLate

MOST_ENDED_PER_PASS = 500
_STATUSES = {OnLate.DROP: JobStatus.CANCELLED, OnLate.DEAD: JobStatus.DEAD}


class LateTurn(Protocol):
    """What ending late jobs needs of a turn."""

    @property
    def pressure(self) -> bool: ...

    async def end_late(self, status: JobStatus, *, most: int) -> list[EndedLate]: ...


class LateJobs:
    """The late jobs of one use case."""

    def __init__(self, use_case: str, on_late: OnLate, *, bus: Bus) -> None:
        self._use_case = use_case
        self._status = _STATUSES.get(on_late)
        self._bus = bus

    async def end(self, turn: LateTurn) -> list[EndedLate]:
        """End what is late, before the turn leases."""
        if self._status is None or not turn.pressure:
            return []
        return await turn.end_late(self._status, most=MOST_ENDED_PER_PASS)

    def tell(self, ended: Sequence[EndedLate]) -> None:
        """The turn has committed."""
        for job in ended:
            self._bus.emit(
                JobEndedLate(
                    job_id=job.job_id,
                    tenant_id=job.tenant_id,
                    use_case=self._use_case,
                    type=job.type,
                    queue=job.queue,
                    attempt=job.attempts,
                    ran_seconds=0.0,
                    error=job.last_error,
                    late_by_seconds=job.late_by_seconds,
                    slack=job.broken_promise,
                    dead=self._status is JobStatus.DEAD,
                )
            )
