"""Deletes and counts finished jobs whose time is over, by status. Bounded statements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import tuple_row

from async_jobs.core.clock import Clock
from async_jobs.models import JobStatus
from async_jobs.store.door import Door
from async_jobs.store.queries import query

_PRUNE_BY_STATUS = query("prune_by_status", "retention")
_COUNT_OLD = query("count_old", "retention")


@dataclass(frozen=True, slots=True)
class Pruned:
    """Jobs deleted and jobs seen, and the last one seen: the next batch begins after it."""

    jobs: int = 0
    seen: int = 0
    after: datetime | None = None
    after_id: UUID | None = None


class Retention:
    """Pruning by status."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock

    async def prune_by_status(
        self,
        use_case: str,
        statuses: Iterable[JobStatus],
        *,
        retention_seconds: float,
        last: Pruned,
        most: int,
    ) -> Pruned:
        """Look at up to *most* old jobs after *last*, and delete those with one of *statuses*."""
        asked = {
            "use_case": use_case,
            "statuses": [status.value for status in statuses],
            "retention_seconds": retention_seconds,
            "after": last.after,
            "after_id": last.after_id,
            "most": most,
            "now": self._clock.now(),
        }
        [(jobs, seen, after, after_id)] = await self._door.rows(
            _PRUNE_BY_STATUS, asked, tuple_row, prepare=False
        )
        return Pruned(jobs, seen, after or last.after, after_id or last.after_id)

    async def count_old(
        self, use_case: str, *, retention_seconds: float, last: Pruned, most: int
    ) -> tuple[dict[str, int], Pruned]:
        """How many of the next *most* old jobs after *last* have which status; none is deleted."""
        asked = {
            "use_case": use_case,
            "retention_seconds": retention_seconds,
            "after": last.after,
            "after_id": last.after_id,
            "most": most,
            "now": self._clock.now(),
        }
        [(by_status, seen, after, after_id)] = await self._door.rows(
            _COUNT_OLD, asked, tuple_row, prepare=False
        )
        return by_status, Pruned(0, seen, after or last.after, after_id or last.after_id)
