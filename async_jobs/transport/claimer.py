"""When a worker claims waiting jobs itself instead of picking what a scheduler leased for it.

A worker asks for leave when jobs fill all its slots, for then others may wait, and when they come
one after the other, for then each would wait for a scheduler. While it has jobs to start it looks
whether there is leave, which another worker may have asked for, and claims as long as there is:
what waits, and with each hint of a producer what has just come. See `store/claims.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from async_jobs.core.claims import Claimed
from async_jobs.core.slo import Slack
from async_jobs.models import StartedJob
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import JobsLeased

STAYS_BUSY_SECONDS = 2.0
"""How long after its last job a worker still looks for leave."""
ASK_AGAIN_SECONDS = 1.0
NO_LEAVE_SECONDS = 0.5
NO_LEAVE_IF_FULL_SECONDS = 0.1
NO_LUCK_SECONDS = 0.005
LEAVE_LASTS_SECONDS = 1.0
STEADY_JOBS = 5
"""So many jobs within a second come one after the other."""
STEADY_SECONDS = 1.0
PICK_EVERY_SECONDS = 0.05
"""How often a worker that claims looks for what a scheduler leased; after a hint, at once."""
CLAIM_FIRST_SECONDS = 0.5
"""For so long at most producers' hints make it claim instead."""


class ClaimDesk(Protocol):
    """The store's side of claims."""

    async def ask(self, use_cases: Collection[str]) -> None: ...

    async def claim(
        self,
        use_cases: Sequence[str],
        queues: Sequence[str],
        *,
        slots: int,
        worker: str,
        lease_seconds: float,
    ) -> Claimed | None: ...


class Claimer:
    """Claims jobs of some use cases for one worker."""

    def __init__(
        self,
        desk: ClaimDesk,
        use_cases: Sequence[str],
        queues: Sequence[str],
        *,
        worker: str,
        lease_seconds: float,
        bus: Bus,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._use_cases = use_cases
        self._queues = queues
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._bus = bus
        self._monotonic = monotonic
        self._busy_until = 0.0
        self._full_until = 0.0
        self._leave_until = 0.0
        self._claim_at = 0.0
        self._ask_at = 0.0
        self._pick_at = 0.0
        self._some_wait = False
        self._counted_since = 0.0
        self._counted = 0

    @property
    def may_have_luck(self) -> bool:
        """Whether jobs wait for which there is leave, as far as was seen a moment ago."""
        return self.has_leave and self._some_wait

    @property
    def has_leave(self) -> bool:
        """Whether somebody may claim, as far as was seen a moment ago."""
        return self._monotonic() < self._leave_until

    def is_pick_due(self, *, hinted: bool = False) -> bool:
        """Whether to look for leased jobs before the next claim, to which a producer *hinted*."""
        now = self._monotonic()
        due_at = self._pick_at + (CLAIM_FIRST_SECONDS if hinted else 0.0)
        if now < due_at and now < self._leave_until:
            return False
        self._pick_at = now + PICK_EVERY_SECONDS
        return True

    def rang(self) -> None:
        """A hint came: there may be leave now."""
        self._claim_at = 0.0

    def heard_due(self, use_case: str) -> bool:
        """A producer hints that jobs of *use_case* wait; whether to try a claim now."""
        now = self._monotonic()
        if use_case not in self._use_cases or (now < self._claim_at and not self.has_leave):
            return False
        self._claim_at = 0.0
        self._busy_until = max(self._busy_until, now + NO_LEAVE_SECONDS)
        return True

    def is_busy(self) -> None:
        """There were jobs to start."""
        self._busy_until = self._monotonic() + STAYS_BUSY_SECONDS

    async def started(self, jobs: Sequence[StartedJob], *, all_slots: bool) -> None:
        """*jobs* begin now: ask for leave if they fill *all_slots* or come one after the other.

        Unless that was done a moment ago.
        """
        now = self._monotonic()
        if all_slots:
            self._full_until = now + STAYS_BUSY_SECONDS
        if now >= self._counted_since + STEADY_SECONDS:
            self._counted_since, self._counted = now, 0
        self._counted += len(jobs)
        use_cases = {job.use_case for job in jobs}.intersection(self._use_cases)
        wants_leave = all_slots or self._counted >= STEADY_JOBS
        if use_cases and wants_leave and now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            await self._desk.ask(use_cases)

    async def claim(self, slots: int) -> list[StartedJob]:
        """Up to *slots* claimed jobs; none if this worker is not busy or has no leave."""
        now = self._monotonic()
        if not self._claim_at <= now < self._busy_until:
            return []
        claimed = await self._desk.claim(
            self._use_cases,
            self._queues,
            slots=slots,
            worker=self._worker,
            lease_seconds=self._lease_seconds,
        )
        if claimed is None:
            self._leave_until = 0.0
            full = now < self._full_until
            self._claim_at = now + (NO_LEAVE_IF_FULL_SECONDS if full else NO_LEAVE_SECONDS)
            return []
        self._leave_until = now + LEAVE_LASTS_SECONDS
        self._some_wait = claimed.some_wait
        if claimed.jobs:
            self._tell(claimed)
        else:
            self._claim_at = now + NO_LUCK_SECONDS
        return claimed.jobs

    def _tell(self, claimed: Claimed) -> None:
        self._bus.emit(
            JobsLeased(
                use_case=claimed.use_case,
                sent=len(claimed.jobs),
                failed=0,
                in_flight=claimed.in_flight,
                capacity=claimed.capacity,
                slacks=[_slack(job) for job in claimed.jobs],
            )
        )


def _slack(job: StartedJob) -> Slack:
    return Slack(
        job.tenant_id,
        (job.deadline_at - job.started_at).total_seconds(),
        (job.deadline_at - job.run_at).total_seconds(),
    )
