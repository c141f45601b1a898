"""Nothing is sent to a queue that is full of tickets that nobody starts.

Without workers every ticket's lease runs out, its job is leased anew, and another message
joins the old one; fences make the old one harmless, but the queue would grow without end,
and the first workers to come would wade through it. So a scheduler that has
seen no start for a whole dispatch lease looks before it sends, once a second:

    fewer messages than the capacity    it sends: with what is in flight they stay below twice it
    as many, or more                    it leases nothing until workers have taken some

While workers start what is sent, nothing is asked. A queue that does not tell its depth (the
right to ask may be missing) is taken for one with room.
"""

from __future__ import annotations

import math
from typing import Protocol

from async_jobs.errors import TransportError

ASK_EVERY_SECONDS = 1.0
ASK_EVERY_PART = 0.25


class DeepQueue(Protocol):
    """A queue that knows how many messages wait in it."""

    async def depth(self) -> int: ...


class Depth:
    """What one scheduler knows of one queue. Times are monotonic, in seconds."""

    def __init__(self, queue: DeepQueue, *, most: int, trust_seconds: float) -> None:
        self.is_full = False
        """Whether it was full when last looked at, and nothing has been started since."""
        self.ask_every_seconds = min(ASK_EVERY_SECONDS, ASK_EVERY_PART * trust_seconds)
        self._queue = queue
        self.most = most
        self._trust_seconds = trust_seconds
        self._asked_at = -math.inf

    async def look(self, *, started_at: float, at: float) -> bool:
        """Whether it is full; *started_at* is when something sent was last seen to be started."""
        if at - started_at < self._trust_seconds:
            self.is_full = False
        elif at - self._asked_at >= self.ask_every_seconds:
            self._asked_at = at
            self.is_full = await self._ask() >= self.most
        return self.is_full

    async def _ask(self) -> int:
        try:
            return await self._queue.depth()
        except TransportError:
            return 0
