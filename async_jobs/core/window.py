"""How many leased jobs may wait for a worker to start them. Pure.

What has been leased stands in no order any more: a queue delivers as it likes.
So little is sent ahead: enough that no worker idles, and no more, or an urgent
arrival would wait behind tolerant jobs. TCP Vegas does the same with packets
(Brakmo & Peterson 1995): grow while the queue runs empty, shrink while what stands
in it is old.

    it was full, and three quarters were started  the workers keep up and would soon run dry:
    before the next look                          twice as many
    half of it waits for half a second            too many for these workers: half as many

So it settles a little above what workers start between two looks. (Measured with no-op
jobs: growing only once nothing was left cost a fifth of the rate; growing at one half sent
twice as much ahead for nothing.)

A lost message counts as old until its lease runs out; one alone shrinks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

OLD_SECONDS = 0.5
LEAST = 2
STARTS_AT_SHARE = 0.1


@dataclass(slots=True)
class Window:
    """The most unstarted leases of a use case with *capacity* slots."""

    capacity: int
    size: int = 0
    _was_full: bool = False
    _shrank_at: float = 0.0

    def __post_init__(self) -> None:
        self.size = self.size or max(LEAST, int(STARTS_AT_SHARE * self.capacity))

    def room(self, *, unstarted: int, old: int, at: float) -> int:
        """How many may be leased now.

        *old* of the *unstarted* leases are older than `OLD_SECONDS`; *at* is a
        monotonic time in seconds.
        """
        if 2 * old >= self.size and old >= LEAST:
            self._shrink(at)
        elif 4 * (unstarted - old) <= self.size and self._was_full:
            self.size = min(max(LEAST, self.capacity), 2 * self.size)
        return max(0, self.size - unstarted)

    def is_full(self, *, unstarted: int, old: int, at: float) -> bool:
        """Whether `room` would give nothing and leave the size as it is."""
        if 2 * old >= self.size and old >= LEAST:
            return unstarted >= self.size and at - self._shrank_at < OLD_SECONDS
        grows = 4 * (unstarted - old) <= self.size and self._was_full
        return unstarted >= self.size and not grows

    def sent(self, *, unstarted: int) -> None:
        """A pass is over and leaves so many unstarted leases behind."""
        self._was_full = unstarted >= self.size

    def _shrink(self, at: float) -> None:
        if at - self._shrank_at >= OLD_SECONDS:
            self.size = max(LEAST, self.size // 2)
            self._shrank_at = at
