"""Asks the server what a check-up needs to know; it works whatever the schema's version."""

from __future__ import annotations

import time
from dataclasses import replace

from psycopg.rows import class_row

from async_jobs.core.checkup import Examined
from async_jobs.store.door import Door
from async_jobs.store.queries import query

_EXAMINE = query("examine", "doctor")


async def examine(door: Door) -> Examined:
    """The server's side of a check-up, and how far its clock is from ours.

    A server says its session's process id when one connects; a pooler says one of its own.
    """
    async with door.transaction() as conn:
        began = time.time()
        [found] = await door.rows(_EXAMINE, {}, class_row(Examined), on=conn)
        middle = (began + time.time()) / 2
        return replace(
            found,
            clock_difference_seconds=abs(found.server_epoch - middle),
            is_pooled=conn.info.backend_pid != found.server_pid,
        )
