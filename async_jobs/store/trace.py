"""Reads what ran to its end, page by page, for a simulation of it.

Each page is one short statement on the index of finished jobs. So an export of any size
holds one page in memory and no snapshot in the database; what is pruned meanwhile is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.rows import tuple_row

from async_jobs.simulation.arrivals import Arrival
from async_jobs.store.door import Door
from async_jobs.store.queries import query

PAGE = 5_000

_TRACE_FINISHED = query("trace_finished", "trace")
_BEFORE_ALL = datetime(1900, 1, 1, tzinfo=UTC)
_NO_ID = UUID(int=0)


async def finished_pages(
    door: Door, use_case: str, *, since: datetime | None, page: int
) -> AsyncIterator[list[Arrival]]:
    """The jobs of *use_case* that succeeded or died at or after *since*, as they arrived."""
    after_at, after_id = since or _BEFORE_ALL, _NO_ID
    while True:
        rows: list[Any] = await door.rows(
            _TRACE_FINISHED,
            {"use_case": use_case, "after_at": after_at, "after_id": after_id, "most": page},
            tuple_row,
            prepare=False,
        )
        if rows:
            yield [Arrival(*row[2:]) for row in rows]
            after_id, after_at = rows[-1][:2]
        if len(rows) < page:
            return
