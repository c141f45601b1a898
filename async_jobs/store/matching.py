"""All jobs that match a filter, on the store's door: found, counted, cancelled, requeued.

Finding is bounded by rows, not by luck: see `find_matching`. It has a time-out of its own in the
server, so that a filter that turns out slow costs PostgreSQL seconds and no more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row, scalar_row, tuple_row

from async_jobs.core.clock import Clock
from async_jobs.core.filters import Found, JobFilter, Verb
from async_jobs.models import Job, JobStatus
from async_jobs.store.door import Door
from async_jobs.store.queries import query
from async_jobs.store.whole_rows import job_row, read_leniently

FINDS_WITHIN_MS = 5_000
# Compiling costs more than looking does.
_BOUND = (
    b"SELECT set_config('statement_timeout', %(ms)s::text, true), set_config('jit', 'off', true)"
)
_FIND = query("find_matching", "matching")
_FIND_TWIN = query("find_unfinished_twin", "matching")
_LIST_CHOSEN = query("list_chosen", "matching")
_WRITE = query("write_matching", "matching")
_MOVES = {
    "cancel": query("cancel_matching", "matching"),
    "requeue": query("requeue_matching", "matching"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedJob:
    """A job that a move on all that matches took effect on, and its status since."""

    job_id: UUID
    tenant_id: str
    use_case: str
    type: str
    queue: str
    attempts: int
    status: JobStatus


class MatchingJobs:
    """The statements of `matching.sql`."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock

    async def find(
        self,
        wanted: JobFilter,
        *,
        before: UUID | None,
        most: int,
        look: int,
        as_of: datetime | None = None,
    ) -> Found:
        """Up to *most* jobs after *before* in the list, among *look* rows.

        None that is younger than *as_of*, which goes by `created_at` alone: ids that their
        producers chose tell no time.
        """
        values = {
            "as_of": as_of,
            **wanted.values(),
            "before": before,
            "most": most + 1,
            "look": look,
            "now": self._clock.now(),
        }
        async with self._door.transaction() as conn:
            await self._door.rows(_BOUND, {"ms": str(FINDS_WITHIN_MS)}, scalar_row, on=conn)
            rows = await self._door.rows(_FIND, values, tuple_row, on=conn, prepare=False)
        ids = [row[0] for row in rows if row[0] is not None]
        if len(ids) > most:
            return Found(ids[:most], ids[most - 1])
        looked_to = rows[0][1]
        return Found(ids, looked_to, 0 if looked_to is None else look)

    async def find_twin(self, tenant_id: str, dedupe_key: str) -> list[UUID]:
        """The unfinished job that holds this key, if there is one."""
        values = {"tenant_id": tenant_id, "dedupe_key": dedupe_key}
        return await self._door.rows(_FIND_TWIN, values, scalar_row)

    async def jobs(self, ids: Sequence[UUID]) -> list[Job]:
        """These jobs, newest first, without payload and result (None)."""
        values = {"ids": list(ids)}
        return await self._door.rows(_LIST_CHOSEN, values, job_row, set_up=read_leniently)

    async def write(self, verb: Verb, wanted: JobFilter, *, chosen: int, actor: str) -> None:
        """Write down that *actor* is about to move *chosen* jobs of *wanted*."""
        values = {
            "actor": actor,
            "move": verb,
            "use_case": wanted.use_case or "",
            "tenant_id": wanted.tenant_id or "",
            "after": json.dumps({"chosen": chosen, "matching": wanted.told()}),
            "now": self._clock.now(),
        }
        await self._door.rows(_WRITE, values, scalar_row)

    async def move(
        self,
        verb: Verb,
        ids: Sequence[UUID],
        *,
        status: str | None,
        more_attempts: int,
    ) -> list[MovedJob]:
        """Cancel or requeue these, as far as they are still of that *status*."""
        values = {
            "ids": list(ids),
            "status": status,
            "more_attempts": more_attempts,
            "now": self._clock.now(),
        }
        try:
            return await self._door.rows(_MOVES[verb], values, class_row(MovedJob))
        except UniqueViolation:
            # A producer took a dedupe key this very moment: all of the batch but that job.
            if len(ids) == 1:
                return []
        half = len(ids) // 2
        parts = [
            await self.move(verb, part, status=status, more_attempts=more_attempts)
            for part in (ids[:half], ids[half:])
        ]
        return [*parts[0], *parts[1]]
