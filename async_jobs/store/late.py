"""Ends waiting jobs whose deadline has passed, for use cases that do not run late jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from async_jobs.core.slo import Slack
from async_jobs.models import JobStatus
from async_jobs.store.door import Connection, Door
from async_jobs.store.queries import query

_END_LATE = query("end_late", "late")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedLate:
    """A waiting job that was ended, and how long before that its deadline had passed."""

    job_id: UUID
    tenant_id: str
    type: str
    queue: str
    attempts: int
    last_error: dict[str, Any]
    late_by_seconds: float
    tolerance_seconds: float
    never_started: bool

    @property
    def broken_promise(self) -> Slack | None:
        """The slack of a job that will never start; None if its promise was counted at a start."""
        if not self.never_started:
            return None
        return Slack(self.tenant_id, -self.late_by_seconds, self.tolerance_seconds)


async def end_late(
    door: Door,
    conn: Connection,
    use_case: str,
    status: JobStatus,
    *,
    most: int,
    now: datetime | None,
) -> list[EndedLate]:
    """End up to *most* late waiting jobs of *use_case* as *status*, cancelled or dead."""
    params = {"use_case": use_case, "status": status.value, "most": most, "now": now}
    return await door.rows(_END_LATE, params, class_row(EndedLate), on=conn, prepare=False)
