"""When a new job is refused, and when to come back. Pure.

A job is refused only if all of this holds; everybody else's job is accepted:

    its deadline will be missed        the forecast says so, from run times that were measured
    its tenant is above its share      what it has waiting takes its share of the slots longer
                                       than the job's tolerance
    others have work                   alone, a tenant may be late as it likes

The time to come back is when the tenant's own share will have worked off the excess, spread by
a fifth to either side so that those who were refused together do not return together.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log2

SHORTEST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
SPREAD = 0.2


def jobs_that_fit(capacity: float, mean_seconds: float, tolerance_seconds: float) -> int:
    """Jobs that can start within the tolerance, one for each slot at once."""
    return max(ceil(capacity), floor(capacity * tolerance_seconds / max(mean_seconds, 1e-3)))


def rounded_up(tolerance_seconds: float) -> float:
    """The next power of two: so few tolerances are asked about that answers can be used again."""
    return 2.0 ** ceil(log2(max(tolerance_seconds, 1.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a tenant has waiting in a use case, against what its share can do.

    `pending` are its unfinished jobs, counted no further than need be; `share` is in slots;
    `mean_seconds` is how long its jobs run.
    """

    pending: int
    share: float
    mean_seconds: float
    others_wait: bool

    @property
    def drain_per_second(self) -> float:
        """Jobs that the tenant's share works off in a second."""
        return self.share / max(self.mean_seconds, 1e-3)

    def allowed(self, tolerance_seconds: float) -> int:
        """Jobs that the share works off within *tolerance_seconds*; what it runs now included."""
        return jobs_that_fit(self.share, self.mean_seconds, tolerance_seconds)


def refusal_seconds(standing: Standing, *, tolerance_seconds: float, random: float) -> float | None:
    """After how many seconds a late job may be offered again; None if it is accepted.

    Only asked for jobs that are forecast to be late. *random* in [0, 1) spreads the answers.
    """
    excess = standing.pending - standing.allowed(tolerance_seconds)
    if excess <= 0 or not standing.others_wait:
        return None
    return wait_seconds(excess, standing.drain_per_second, random=random)


def wait_seconds(jobs: int, per_second: float, *, random: float) -> float:
    """How long *jobs* take at this rate, spread and within bounds."""
    soon = jobs < LONGEST_SECONDS * per_second
    seconds = ceil(jobs / per_second) if soon else LONGEST_SECONDS
    spread = 1 + SPREAD * (2 * random - 1)
    return min(max(seconds * spread, SHORTEST_SECONDS), LONGEST_SECONDS)
