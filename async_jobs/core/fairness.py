"""Which waiting jobs get the free slots. Pure.

Without concurrency quotas the answer is plain earliest deadline first, which
meets every deadline that can be met, and needs no choosing: the index gives the
order. With quotas the scheduler fetches the most urgent jobs of each tenant and
`choose` picks among them: still earliest deadline first, but no tenant past its
`max_concurrent_jobs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A waiting job that may be leased."""

    job_id: UUID
    tenant_id: str
    deadline_at: datetime
    priority: int

    @property
    def urgency(self) -> tuple[datetime, int, UUID]:
        return (self.deadline_at, -self.priority, self.job_id)


def free_slots(capacity: int, held: Mapping[str, int]) -> int:
    """How many more leases fit under *capacity*, given what each tenant holds."""
    return max(0, capacity - sum(held.values()))


def choose(
    candidates: Iterable[Candidate],
    *,
    slots: int,
    held: Mapping[str, int],
    most_for: Mapping[str, int],
) -> list[UUID]:
    """The jobs to lease, most urgent first.

    *most_for* is the most leases a tenant may hold; a tenant it does not name
    has no bound but the use case's capacity.
    """
    holds = Counter(held)
    chosen: list[UUID] = []
    for candidate in sorted(candidates, key=lambda waiting: waiting.urgency):
        if len(chosen) == slots:
            break
        tenant = candidate.tenant_id
        if tenant in most_for and holds[tenant] >= most_for[tenant]:
            continue
        holds[tenant] += 1
        chosen.append(candidate.job_id)
    return chosen
