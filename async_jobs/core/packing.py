"""How many tickets to put into one message. Pure.

One message goes to one worker, so a pack must be no larger than what a worker
starts at once; otherwise the rest of it waits while other workers idle. The
only thing the scheduler knows about workers is how fast slots turn over: at R
leases a second, a pack of R / 100 is ten milliseconds' work of the whole fleet,
a tenth of a second's for each of ten workers. Below 200 leases a second every
message carries one ticket.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 1.0
PACK_SECONDS = 0.01
MOST_PER_MESSAGE = 50


@dataclass(slots=True)
class Turnover:
    """Leases of the last second."""

    _leases: deque[tuple[float, int]] = field(default_factory=deque)
    _total: int = 0

    def add(self, leases: int, *, at: float) -> None:
        """*leases* were given at the monotonic time *at* (seconds)."""
        self._leases.append((at, leases))
        self._total += leases
        while self._leases[0][0] <= at - WINDOW_SECONDS:
            self._total -= self._leases.popleft()[1]

    def pack(self) -> int:
        """Tickets for one message, from 1 to 50."""
        per_second = self._total / WINDOW_SECONDS
        return max(1, min(MOST_PER_MESSAGE, int(per_second * PACK_SECONDS)))
