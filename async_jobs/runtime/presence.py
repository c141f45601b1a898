"""Says that this process lives, every ten seconds, and takes up what it is told in turn.

every tick       one statement: seen now, serving this; the answer holds the overrides and
                 whether an operator asked this process to stop
a hint           the next tick comes at once, so that a change holds within moments
database away    what was told before goes on to hold
stop             the row goes, so that nobody counts on this process
crash            the row grows old; after 60 s it counts as gone
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from async_jobs import __version__
from async_jobs.core.overrides import Override
from async_jobs.runtime.loop import Loop
from async_jobs.store.steering import Orders
from async_jobs.telemetry.bus import Bus

EVERY_SECONDS = 20.0
LAST_WORDS_SECONDS = 2.0

Serves = Callable[[], Mapping[str, object]]


class PresenceDesk(Protocol):
    """The store's moves that presence makes."""

    async def report_alive(
        self, name: str, *, role: str, version: str, up_seconds: float, serves: Mapping[str, object]
    ) -> Orders: ...

    async def report_gone(self, name: str) -> None: ...


def _ignore(overrides: Sequence[Override]) -> None:
    pass


class Presence:
    """One process, as the others see it.

    *serves* tells what it serves now. *steer* is called with the overrides whenever they change,
    *stop* once when an operator asks this process to stop.
    """

    def __init__(
        self,
        desk: PresenceDesk,
        *,
        name: str,
        role: str,
        serves: Serves,
        stop: Callable[[], None],
        steer: Callable[[Sequence[Override]], None] = _ignore,
    ) -> None:
        self.name = name
        self._desk = desk
        self._role = role
        self._serves = serves
        self._stop = stop
        self._steer = steer
        self._began_at = time.monotonic()
        self._overrides: Sequence[Override] = []
        self._stopped = False

    async def tick(self) -> float:
        """Say it, take up what is told; seconds until the next time."""
        orders = await self._desk.report_alive(
            self.name,
            role=self._role,
            version=__version__,
            up_seconds=time.monotonic() - self._began_at,
            serves=self._serves(),
        )
        if orders.overrides != self._overrides:
            self._overrides = orders.overrides
            self._steer(orders.overrides)
        if orders.stop and not self._stopped:
            self._stopped = True
            self._stop()
        return EVERY_SECONDS

    async def leave(self) -> None:
        """Say that this process is gone; if that cannot be said, its row grows old."""
        with suppress(Exception):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._desk.report_gone(self.name)


@asynccontextmanager
async def present(presence: Presence, *, bus: Bus) -> AsyncIterator[Loop]:
    """The process is seen while inside; waking the loop has it ask for orders at once."""
    loop = Loop("presence", presence.tick, bus=bus)
    try:
        async with loop.running():
            yield loop
    finally:
        await presence.leave()
