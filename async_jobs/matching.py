"""See and move everything that matches a filter: pages, a count beforehand, bounded batches.

A move chooses its jobs first, newest first: at most `MOST_MOVED`, having looked through at most
`MOST_LOOKED` rows, and it says where to go on. Then one audit line tells whose move it is, on how
many jobs of which filter. Only then it moves them, `MOVED_AT_ONCE` at a time and at most one batch
in `SECONDS_PER_BATCH`, so that workers and producers find room between two batches.
"""

from __future__ import annotations

import time
from asyncio import sleep as pause
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from async_jobs.core.filters import LOOKED_PER_PAGE, Found, JobFilter, Moved, Verb
from async_jobs.models import Job, JobStatus
from async_jobs.store.matching import MovedJob
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import JobCancelled, JobRequeued

MOST_COUNTED = 10_000
LOOKED_PER_COUNT = 50_000
MOVED_AT_ONCE = 500
SECONDS_PER_BATCH = 0.25
MOST_MOVED = 10_000
MOST_LOOKED = 1_000_000
LOOKED_PER_STEP = 50_000
MORE_ATTEMPTS = 3


class MatchingDesk(Protocol):
    """The store's moves on what matches."""

    async def find(
        self,
        wanted: JobFilter,
        *,
        before: UUID | None,
        most: int,
        look: int,
        as_of: datetime | None = None,
    ) -> Found: ...

    async def find_twin(self, tenant_id: str, dedupe_key: str) -> list[UUID]: ...

    async def jobs(self, ids: Sequence[UUID]) -> list[Job]: ...

    async def write(self, verb: Verb, wanted: JobFilter, *, chosen: int, actor: str) -> None: ...

    async def move(
        self,
        verb: Verb,
        ids: Sequence[UUID],
        *,
        status: str | None,
        more_attempts: int,
    ) -> list[MovedJob]: ...


class Matching:
    """What operators may do with all jobs of a filter; made by `JobService.matching`."""

    def __init__(
        self,
        desk: MatchingDesk,
        hint: Callable[[Sequence[str]], Awaitable[None]],
        bus: Bus,
    ) -> None:
        self._desk = desk
        self._hint = hint
        self._bus = bus

    async def page(
        self, wanted: JobFilter, *, cursor: UUID | None = None, most: int = 100
    ) -> tuple[Sequence[Job], Found]:
        """A page of *wanted*, newest first, without payloads, and how far it came.

        Bounded: it looks through 20,000 rows at most, and may find fewer than there are further on.
        The unfinished job of a tenant's dedupe key is found at once, and stands on the first page.
        """
        found = await self._desk.find(wanted, before=cursor, most=most, look=LOOKED_PER_PAGE)
        ids = set(found.ids)
        if cursor is None and wanted.tenant_id and wanted == _of_key(wanted):
            ids |= set(await self._desk.find_twin(wanted.tenant_id, str(wanted.dedupe_key)))
        return await self._desk.jobs(sorted(ids)), found

    async def count(self, verb: Verb, wanted: JobFilter, *, cursor: UUID | None = None) -> Found:
        """What *verb* would move, newest first: at most 10,000, among 50,000 rows."""
        return await self._desk.find(
            movable(verb, wanted), before=cursor, most=MOST_COUNTED, look=LOOKED_PER_COUNT
        )

    async def move(
        self,
        verb: Verb,
        wanted: JobFilter,
        *,
        enqueued_before: datetime,
        actor: str,
        cursor: UUID | None = None,
    ) -> Moved:
        """Cancel, or requeue with three more attempts, all of *wanted* enqueued before a moment.

        At most 10,000 of them, in batches; as `JobService.cancel` and `requeue` do for one. Raises
        StoreUnavailable: what was moved by then is in the audit.
        """
        narrowed = movable(verb, wanted)
        chosen = await self._choose(narrowed, cursor, enqueued_before)
        if chosen.ids:
            await self._desk.write(verb, narrowed, chosen=len(chosen.ids), actor=actor)
        moved, began = 0, 0.0
        for first in range(0, len(chosen.ids), MOVED_AT_ONCE):
            if first:
                await pause(began + SECONDS_PER_BATCH - time.monotonic())
            began = time.monotonic()
            batch = chosen.ids[first : first + MOVED_AT_ONCE]
            moved += await self._move_batch(verb, batch, narrowed.status)
        return Moved(moved, chosen.cursor)

    async def _choose(self, wanted: JobFilter, cursor: UUID | None, as_of: datetime) -> Found:
        ids: list[UUID] = []
        looked = 0
        while len(ids) < MOST_MOVED and looked < MOST_LOOKED:
            most = MOST_MOVED - len(ids)
            found = await self._desk.find(
                wanted, before=cursor, most=most, look=LOOKED_PER_STEP, as_of=as_of
            )
            ids += found.ids
            looked += found.looked_through
            cursor = found.cursor
            if cursor is None:
                break
        return Found(ids, cursor)

    async def _move_batch(self, verb: Verb, ids: Sequence[UUID], status: str | None) -> int:
        moved = await self._desk.move(verb, ids, status=status, more_attempts=MORE_ATTEMPTS)
        if verb == "requeue" and moved:
            await self._hint(sorted({job.use_case for job in moved}))
        for job in moved:
            self._tell(verb, job)
        return len(moved)

    def _tell(self, verb: Verb, job: MovedJob) -> None:
        facts: dict[str, Any] = {
            "job_id": job.job_id,
            "tenant_id": job.tenant_id,
            "use_case": job.use_case,
            "type": job.type,
            "queue": job.queue,
            "attempt": job.attempts,
        }
        if verb == "requeue":
            self._bus.emit(JobRequeued(**facts))
        elif job.status == JobStatus.CANCELLED:
            self._bus.emit(JobCancelled(**facts, ran_seconds=0.0))


def movable(verb: Verb, wanted: JobFilter) -> JobFilter:
    """*wanted* as *verb* takes it: a requeue without a status means the dead, a cancel the pending.

    Jobs of another status are not moved: who wants succeeded ones requeued has to say so.
    """
    if wanted.status is not None:
        return wanted
    return replace(wanted, status="dead" if verb == "requeue" else "pending")


def _of_key(wanted: JobFilter) -> JobFilter:
    """*wanted* reduced to a tenant's dedupe key; equal to it if it asks for nothing else."""
    if wanted.dedupe_key is None:
        return JobFilter()
    return JobFilter(tenant_id=wanted.tenant_id, dedupe_key=wanted.dedupe_key)
