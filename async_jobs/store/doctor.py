"""Asks the server what a check-up needs to know; it works whatever the schema's version."""

from __future__ import annotations

from psycopg.rows import class_row

from async_jobs.core.checkup import Examined
from async_jobs.store.door import Door
from async_jobs.store.queries import query

_EXAMINE = query("examine", "doctor")


async def examine(door: Door) -> Examined:
    """The server's side of a check-up."""
    return (await door.rows(_EXAMINE, {}, class_row(Examined)))[0]
