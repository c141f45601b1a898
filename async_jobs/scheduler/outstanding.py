"""Tickets that were sent and perhaps not started: their leases live as long as their sender.

A message between the lease and the queue is known to one scheduler only. Should that one
die or be stopped there, the slots of its leases would stay empty until the dispatch lease
runs out, and with a small window (`core/window.py`) the use case would stand still. So:

    leased         for three seconds, not for the whole dispatch lease
    still waiting  (no worker had a slot) its sender renews it every second, in one statement,
                   until the dispatch lease is over: the ticket may be lost
    sender gone    nobody renews it; rescue takes it back, another scheduler leases it anew

While workers keep up nothing is renewed: a count that finds no old lease clears the list.
What leaves the list before its lease could end has been started: `started_at` says when that
was last seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from async_jobs.core.window import OLD_SECONDS
from async_jobs.models import Leased, Ticket

RENEWAL_SECONDS = 3.0
RENEW_EVERY_SECONDS = 1.0
MARGIN = 1 / 3
"""Part of a short lease by which it may have ended sooner than its sender thinks."""


class RenewDesk(Protocol):
    """The store's move that renews leases of sent tickets."""

    async def renew(
        self, tickets: Sequence[Ticket], *, lease_seconds: float, most_seconds: float
    ) -> set[UUID]: ...


class Outstanding:
    """The tickets that one dispatcher has sent. Times are monotonic, in seconds."""

    def __init__(self, desk: RenewDesk, *, dispatch_lease_seconds: float) -> None:
        self.lease_seconds = min(RENEWAL_SECONDS, dispatch_lease_seconds)
        self._desk = desk
        self._most_seconds = dispatch_lease_seconds
        self._sent: dict[UUID, tuple[int, float]] = {}
        self._renewed_at = 0.0
        self.started_at = -math.inf

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, leased: Sequence[Leased], *, at: float) -> None:
        """These tickets are on their way; their leases began a moment before *at*."""
        if not self._sent:
            self._renewed_at = at
        self._sent.update((job.job_id, (job.lease_seq, at)) for job in leased)

    def none_is_old(self, *, at: float) -> None:
        """At *at* no unstarted lease of the use case was older than `OLD_SECONDS`."""
        youngest_over = at - (1 - MARGIN) * self.lease_seconds
        if any(youngest_over < sent_at <= at - OLD_SECONDS for _, sent_at in self._sent.values()):
            self.started_at = at
        self._keep_sent_after(at - OLD_SECONDS)

    def forget(self, leased: Sequence[Leased]) -> None:
        """These tickets were not accepted."""
        for job in leased:
            self._sent.pop(job.job_id, None)

    async def renew(self, *, at: float) -> None:
        """Renew what still waits, if it is time to. Raises StoreUnavailable."""
        if at - self._renewed_at < RENEW_EVERY_SECONDS:
            return
        self._renewed_at = at
        self._keep_sent_after(at - self._most_seconds)
        if not self._sent:
            return
        tickets = [Ticket(job_id, lease_seq) for job_id, (lease_seq, _) in self._sent.items()]
        unstarted = await self._desk.renew(
            tickets, lease_seconds=self.lease_seconds, most_seconds=self._most_seconds
        )
        youngest_over = at - self._most_seconds + MARGIN * self.lease_seconds
        if any(
            sent_at > youngest_over
            for job_id, (_, sent_at) in self._sent.items()
            if job_id not in unstarted
        ):
            self.started_at = at
        self._sent = {job_id: one for job_id, one in self._sent.items() if job_id in unstarted}

    def _keep_sent_after(self, moment: float) -> None:
        self._sent = {job_id: one for job_id, one in self._sent.items() if one[1] > moment}
