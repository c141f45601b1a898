"""How many attempts may still begin in this process."""

from __future__ import annotations

import asyncio


class Slots:
    """Counts free slots; `claim` never waits, `wait_free` does."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.free = concurrency
        self._some_free = asyncio.Event()
        self._some_free.set()

    def claim(self) -> int:
        """Take all free slots."""
        claimed, self.free = self.free, 0
        self._some_free.clear()
        return claimed

    def give_back(self, slots: int) -> None:
        """Return *slots* slots."""
        self.free += slots
        if self.free:
            self._some_free.set()

    async def wait_free(self) -> None:
        """Wait until there is a free slot."""
        await self._some_free.wait()
