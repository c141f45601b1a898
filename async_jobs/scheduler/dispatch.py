"""Dispatch one use case: count, share out, lease, send, release what did not leave.

A pass is one turn (`store/turn.py`) and one send. The lease is committed before
anything is sent: a crash in between costs nothing but the dispatch lease, which
runs out and is rescued. What a queue does not accept is released at once, with
`enqueue_failed` set until the next lease.

The pass says what to do next, so that slots refill when they free and not at
the next tick: again at once while work and slots are left, soon while the use case
is full or was busy a moment ago, otherwise when somebody wakes it. A queue that
accepts nothing is a failure of the loop: it is tried again after a growing wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from async_jobs.config import TenantQuota, UseCaseConfig
from async_jobs.core.fairness import Candidate, choose, free_slots
from async_jobs.core.packing import Turnover
from async_jobs.errors import TransportError
from async_jobs.models import Leased, Ticket
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import JobsLeased, SendFailed
from async_jobs.transport.ports import Sender, SendReport

MOST_PER_PASS = 500
CANDIDATES_PER_TENANT = 16
SHORTEST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
PAUSE_SHARE = 0.05
STAYS_BUSY_SECONDS = 0.2
UNTIL_WOKEN_SECONDS = 3_600.0


class Turn(Protocol):
    """What a dispatcher may do in its turn."""

    async def count_in_flight(self) -> dict[str, int]: ...

    async def lease_due(self, slots: int, *, lease_seconds: float) -> list[Leased]: ...

    async def find_candidates(
        self, *, per_tenant: int, full_tenants: Sequence[str]
    ) -> list[Candidate]: ...

    async def lease_chosen(self, ids: Sequence[UUID], *, lease_seconds: float) -> list[Leased]: ...

    async def hint(self, queues: Sequence[str]) -> None: ...


class DispatchDesk(Protocol):
    """The store's moves that a dispatcher makes."""

    def take_turn(self, use_case: str) -> AbstractAsyncContextManager[Turn | None]: ...

    async def release(self, tickets: Sequence[Ticket], *, enqueue_failed: bool) -> int: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did: jobs sent, jobs not accepted and why, slots that stayed free."""

    sent: int = 0
    failed: int = 0
    free: int = 0
    had_turn: bool = True
    reason: str = ""


class Dispatcher:
    """Leases and sends the jobs of one use case."""

    def __init__(
        self,
        desk: DispatchDesk,
        sender: Sender,
        use_case: UseCaseConfig,
        *,
        quotas: Mapping[str, TenantQuota],
        dispatch_lease_seconds: float,
        bus: Bus,
    ) -> None:
        self.use_case = use_case
        self._desk = desk
        self._sender = sender
        self._most_for = _concurrency_quotas(quotas)
        self._default_most = quotas["*"].max_concurrent_jobs if "*" in quotas else None
        self._lease_seconds = dispatch_lease_seconds
        self._bus = bus
        self._turnover = Turnover()
        self._sent_at = 0.0

    async def tick(self) -> float:
        """Run one pass; seconds until the next one unless somebody wakes the loop.

        Raises TransportError when the queue accepted nothing, so that the loop backs off.
        """
        done = await self.dispatch()
        if done.failed and not done.sent:
            raise TransportError(self.use_case.queue, done.reason)
        now = time.monotonic()
        if done.sent:
            self._sent_at = now
            if done.free:
                return 0.0
        quiet_seconds = now - self._sent_at
        if done.had_turn and done.free and quiet_seconds > STAYS_BUSY_SECONDS:
            return UNTIL_WOKEN_SECONDS
        # A full use case is looked at again after a twentieth of the time it has been full.
        pause = max(SHORTEST_PAUSE_SECONDS, PAUSE_SHARE * quiet_seconds)
        return min(LONGEST_PAUSE_SECONDS, pause)

    async def dispatch(self) -> Pass:
        """One pass: lease what fits and send it."""
        async with self._desk.take_turn(self.use_case.name) as turn:
            if turn is None:
                return Pass(had_turn=False)
            held = await turn.count_in_flight()
            free = free_slots(self.use_case.max_concurrent, held)
            leased = await self._lease(turn, held, min(free, MOST_PER_PASS))
            if leased and not self.use_case.uses_sqs:
                await turn.hint([self.use_case.queue])
        if not leased:
            return Pass(free=free)
        report = await self._send(leased)
        failed = len(report.failed)
        self._told(leased, failed, sum(held.values()))
        return Pass(len(leased) - failed, failed, free - len(leased), reason=report.reason)

    async def _lease(self, turn: Turn, held: Mapping[str, int], slots: int) -> list[Leased]:
        if slots <= 0:
            return []
        if not self._most_for and self._default_most is None:
            return await turn.lease_due(slots, lease_seconds=self._lease_seconds)
        full = [tenant for tenant, count in held.items() if count >= self._most(tenant, count + 1)]
        candidates = await turn.find_candidates(
            per_tenant=min(slots, CANDIDATES_PER_TENANT), full_tenants=full
        )
        bounds = {one.tenant_id: self._most(one.tenant_id, slots) for one in candidates}
        chosen = choose(candidates, slots=slots, held=held, most_for=bounds)
        if not chosen:
            return []
        return await turn.lease_chosen(chosen, lease_seconds=self._lease_seconds)

    def _most(self, tenant_id: str, unbounded: int) -> int:
        most = self._most_for.get(tenant_id, self._default_most)
        return self.use_case.max_concurrent + unbounded if most is None else most

    async def _send(self, leased: Sequence[Leased]) -> SendReport:
        self._turnover.add(len(leased), at=time.monotonic())
        report = await self._sender.send(leased, pack=self._turnover.pack())
        if report.failed:
            tickets = [Ticket(job.job_id, job.lease_seq) for job in report.failed]
            await self._desk.release(tickets, enqueue_failed=True)
            self._bus.emit(
                SendFailed(
                    queue=self.use_case.queue, messages=len(report.failed), reason=report.reason
                )
            )
        return report

    def _told(self, leased: Sequence[Leased], failed: int, held: int) -> None:
        self._bus.emit(
            JobsLeased(
                use_case=self.use_case.name,
                sent=len(leased) - failed,
                failed=failed,
                in_flight=held + len(leased) - failed,
                capacity=self.use_case.max_concurrent,
            )
        )


def _concurrency_quotas(quotas: Mapping[str, TenantQuota]) -> dict[str, int]:
    return {
        tenant: quota.max_concurrent_jobs
        for tenant, quota in quotas.items()
        if quota.max_concurrent_jobs is not None and tenant != "*"
    }
