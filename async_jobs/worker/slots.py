"""How many attempts may still begin in this process.

An attempt has a slot while its handler runs. Its outcome is then written while the next handler
runs in that slot; but no more outcomes wait to be written than there are slots, so that a slow
database slows down what is begun.
"""

from __future__ import annotations

import asyncio


class Slots:
    """Counts free slots; `claim` never waits, `wait_free` does."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._running = 0
        self._unwritten = 0
        self._some_free = asyncio.Event()
        self._some_free.set()

    @property
    def free(self) -> int:
        """How many attempts may begin now."""
        most = min(self.concurrency, 2 * self.concurrency - self._unwritten)
        return max(0, most - self._running)

    def claim(self) -> int:
        """Take all free slots."""
        claimed = self.free
        self._running += claimed
        self._some_free.clear()
        return claimed

    def give_back(self, slots: int) -> None:
        """Return *slots* slots in which nothing runs."""
        self._running -= slots
        self._tell()

    def hand_over(self) -> None:
        """A handler has ended: its slot is free, its outcome is not written."""
        self._running -= 1
        self._unwritten += 1
        self._tell()

    def written(self) -> None:
        """One of the outcomes handed over is on its row, or never will be."""
        self._unwritten -= 1
        self._tell()

    def _tell(self) -> None:
        if not self._some_free.is_set() and self.free:
            self._some_free.set()

    async def wait_free(self) -> None:
        """Wait until there is a free slot."""
        await self._some_free.wait()
