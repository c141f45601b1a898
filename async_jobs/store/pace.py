"""How often a process knocks at a PostgreSQL that does not open.

While connections are made without trouble, everybody connects at once. From the first one that
failed, or does not come about, until the next one that worked, at most one a second is begun: a
fleet that comes back must not be what keeps the server down. A server that lets everybody in and
then refuses to write (a writer that was demoted) is met at the same pace for a few seconds after
each refusal. Safe to use from any thread.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any, Self

import psycopg

SPACING_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 0.02
DOUBT_SECONDS = 3.0


class Pace:
    """One rhythm, for all who share it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._under_way = 0
        self._worked = True
        self._next_at = 0.0
        self._doubted_until = 0.0

    def begin(self) -> bool:
        """Whether a connect may begin now; then `end` must follow."""
        now = time.monotonic()
        with self._guard:
            smooth = self._worked and not self._under_way and now >= self._doubted_until
            if not smooth and now < self._next_at:
                return False
            self._under_way += 1
            self._next_at = now + SPACING_SECONDS * random.uniform(1.0, 1.25)
            return True

    def end(self, *, worked: bool) -> None:
        """A connect has ended."""
        with self._guard:
            self._under_way -= 1
            self._worked = worked

    def doubt(self) -> None:
        """A connection worked, and the server refused what it was made for."""
        with self._guard:
            self._doubted_until = time.monotonic() + DOUBT_SECONDS

    async def turn(self) -> None:
        """Wait until a connect may begin; then `end` must follow."""
        # Polled, because a thread may be who ends the wait.
        while not self.begin():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


of_this_process = Pace()


class PacedConnection(psycopg.AsyncConnection[Any]):
    """A connection that keeps the pace of its process while it connects."""

    @classmethod
    async def connect(cls, *given: Any, **more: Any) -> Self:
        """As psycopg's, but for the wait before it."""
        await of_this_process.turn()
        worked = False
        try:
            made = await super().connect(*given, **more)
            worked = True
            return made
        finally:
            of_this_process.end(worked=worked)
