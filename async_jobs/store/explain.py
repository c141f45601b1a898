"""Reads, in one statement, everything that decides when one job starts."""

from __future__ import annotations

from uuid import UUID

from psycopg.rows import class_row

from async_jobs.core.clock import Clock
from async_jobs.core.explain import GONE_AFTER_SECONDS, MOST_AHEAD, Snapshot
from async_jobs.store.door import Door
from async_jobs.store.queries import query

_SNAPSHOT_JOB = query("snapshot_job", "explain")


async def read_snapshot(
    door: Door, clock: Clock, job_id: UUID, *, tenant_id: str | None
) -> Snapshot | None:
    """One job and its surroundings; None if there is none, or it is another tenant's."""
    found = await door.rows(
        _SNAPSHOT_JOB,
        {
            "id": job_id,
            "tenant_id": tenant_id,
            "most": MOST_AHEAD,
            "gone_after_seconds": GONE_AFTER_SECONDS,
            "now": clock.now(),
        },
        class_row(Snapshot),
        prepare=False,
    )
    return found[0] if found else None
