"""How many jobs a tenant's rate lets go now, and when the next may. Pure.

The generic cell rate algorithm, in its virtual scheduling form (ITU-T I.371, 2004,
annex A; ATM Forum Traffic Management 4.0, 1996, section 4.4.2): one time per tenant,
at which its next job would go if all went evenly. A job may go as long as that time
lies at most `burst - 1` intervals ahead, and moves it on by one. So in any span of s
seconds at most `burst + rate x s` jobs go, and a tenant that has been quiet for long
costs no state at all.

`ahead_seconds` is that time as seen from now; what has passed counts as now.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

ROUNDING = 1e-6
"""Part of an interval by which sums of fractions may miss a whole number."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many jobs a second, evenly, but for a burst of so many at once."""

    per_second: float
    burst: int

    @property
    def interval_seconds(self) -> float:
        return 1 / self.per_second

    def allowed(self, ahead_seconds: float) -> int:
        """How many jobs may go now."""
        ahead = self._bounded(ahead_seconds)
        return max(0, floor(self.burst - ahead * self.per_second + ROUNDING))

    def ahead_after(self, ahead_seconds: float, jobs: int) -> float:
        """What is ahead once *jobs* more have gone."""
        return self._bounded(ahead_seconds) + jobs * self.interval_seconds

    def wait_seconds(self, ahead_seconds: float) -> float:
        """Until at least one job may go; 0 if one may now."""
        if self.allowed(ahead_seconds):
            return 0.0
        return self._bounded(ahead_seconds) - (self.burst - 1) * self.interval_seconds

    def _bounded(self, ahead_seconds: float) -> float:
        """A clock that was set back, or a rate that was raised, costs a tenant a burst at most."""
        return min(max(0.0, ahead_seconds), self.burst * self.interval_seconds)
