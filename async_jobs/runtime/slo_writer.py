"""Writes what a process has counted for the SLO record, every few seconds if there is something.

    nothing new     no statement
    something new   one statement for everything that was counted since the last one
    written not     kept in memory and written with what comes next; jobs never wait for it
    stop            one last write, with a short time-out
    crash           what was counted since the last write is lost: `EVERY_SECONDS` of counts

Old rows go after a write, at most once in ten minutes, so an idle process prunes nothing either.
After a write whose answer was lost the counts may be written twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from async_jobs.core.slo import Histogram, Key, SloRecord
from async_jobs.runtime.loop import Loop
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import LoopFailed

EVERY_SECONDS = 5.0
PRUNE_EVERY_SECONDS = 600.0
LAST_WRITE_SECONDS = 2.0
MOST_PER_PRUNE = 10_000


class SloDesk(Protocol):
    """The store's moves that the writer makes."""

    async def add(self, counts: Mapping[Key, Histogram]) -> None: ...

    async def prune(self, most: int) -> int: ...


class SloWriter:
    """Carries one record to the database, from a loop that calls `tick`."""

    def __init__(self, record: SloRecord, desk: SloDesk) -> None:
        self._record = record
        self._desk = desk
        self._prune_at = 0.0

    async def tick(self) -> float:
        """Write if there is something to write; seconds until the next time."""
        if counts := self._record.take():
            try:
                await self._desk.add(counts)
            except BaseException:
                self._record.put_back(counts)
                raise
            await self._prune()
        return EVERY_SECONDS

    async def _prune(self) -> None:
        if time.monotonic() < self._prune_at:
            return
        pruned = await self._desk.prune(MOST_PER_PRUNE)
        if pruned < MOST_PER_PRUNE:
            self._prune_at = time.monotonic() + PRUNE_EVERY_SECONDS


@asynccontextmanager
async def writing(writer: SloWriter, *, bus: Bus) -> AsyncIterator[None]:
    """The writer runs while inside, and writes a last time on the way out."""
    loop = Loop("slo record", writer.tick, bus=bus)
    try:
        async with loop.running():
            yield
    finally:
        await _write_last(writer, loop.name, bus)


async def _write_last(writer: SloWriter, name: str, bus: Bus) -> None:
    try:
        async with asyncio.timeout(LAST_WRITE_SECONDS):
            await writer.tick()
    except Exception as error:
        bus.emit(LoopFailed(loop=name, error=error, failures=1, retry_in_seconds=0.0))
