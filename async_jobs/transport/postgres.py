"""PostgreSQL itself as the transport: the leased row is the message.

Used for every use case without an SQS queue. Sending is nothing more than the
lease, which is committed already. A worker picks leased rows of its queues
straight from the table and starts them in the same statement, so there is one
write less than with SQS, no second table and no extra service.

How a worker learns that there is something to pick: a hint (NOTIFY, sent in the
commit of the lease) wakes it; without hints it asks again after a pause that
grows from 20 ms to the poll interval, and to two of them when ten more looks found
nothing: a whole idle system shall cost less than one statement a second. As long as
jobs come with a hint, the pause is the poll interval at once. Hints are never needed.
A busy worker may also claim waiting jobs without a scheduler on the way (`claimer.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from async_jobs.errors import StoreUnavailable
from async_jobs.models import Leased, StartedJob
from async_jobs.transport.claimer import Claimer
from async_jobs.transport.ports import SendReport, StartDesk

FIRST_PAUSE_SECONDS = 0.02
SOON_SECONDS = 0.025
QUIET_LOOKS = 10


class PostgresSender:
    """Nothing to send: the lease is the message."""

    async def send(self, leased: Sequence[Leased], *, pack: int) -> SendReport:
        return SendReport()

    async def depth(self) -> int:
        return 0


class PostgresReceiver:
    """Picks leased jobs of *queues* from the table."""

    def __init__(
        self,
        desk: StartDesk,
        queues: Sequence[str],
        *,
        worker: str,
        lease_seconds: float,
        poll_interval_seconds: float,
        claimer: Claimer | None = None,
    ) -> None:
        self._desk = desk
        self._queues = list(queues)
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._poll_interval_seconds = poll_interval_seconds
        self._claimer = claimer
        self._bell = asyncio.Event()
        self._was_leased = False
        self._was_told = False
        self._pause_seconds = 0.0
        self._quiet_looks = 0
        self._was_rung = False
        self._hints_come = False

    def ring(self, queue: str) -> None:
        """A hint came in for *queue*."""
        if queue in self._queues:
            self._was_leased = True
            self._bell.set()

    def heard_due(self, use_case: str) -> None:
        """A producer's hint came in: jobs of *use_case* wait, to be claimed or leased."""
        if self._claimer is not None and self._claimer.heard_due(use_case):
            self._was_told = True
            self._bell.set()

    async def wait(self, slots: int) -> None:
        if self._pause_seconds:
            try:
                async with asyncio.timeout(self._pause_seconds):
                    await self._bell.wait()
            except TimeoutError:
                pass
            self._was_rung = self._bell.is_set()

    async def start(self, slots: int) -> list[StartedJob]:
        rang, self._was_leased = self._was_leased, False
        self._bell.clear()
        claimer = self._claimer
        jobs = await (self._take(claimer, slots, rang) if claimer else self._pick(slots))
        if jobs:
            self._pause_seconds, self._quiet_looks = 0.0, 0
            self._hints_come = self._was_rung
        if len(jobs) < slots:
            # All that there was: what comes next has a hint of its own.
            self._pause_seconds = self._longer_pause(found_some=bool(jobs))
        return jobs

    async def _take(self, claimer: Claimer, slots: int, rang: bool) -> list[StartedJob]:
        """Pick what is leased, then claim what there is room for; what a producer told of first."""
        told, self._was_told = self._was_told, False
        if rang:
            claimer.rang()
        jobs = await self._pick(slots) if rang or claimer.is_pick_due(hinted=told) else []
        if jobs:
            claimer.is_busy()
        with _kept(jobs):
            if len(jobs) < slots:
                jobs += await claimer.claim(slots - len(jobs))
            if jobs:
                claimer.is_busy()
                await claimer.started(jobs, all_slots=len(jobs) == slots)
        return jobs

    async def _pick(self, slots: int) -> list[StartedJob]:
        return await self._desk.start_leased(
            self._queues, slots=slots, worker=self._worker, lease_seconds=self._lease_seconds
        )

    def _longer_pause(self, *, found_some: bool) -> float:
        if self._claimer is not None and self._claimer.has_leave:
            if self._claimer.may_have_luck:
                return 0.0 if found_some else FIRST_PAUSE_SECONDS
            # A hint speaks for what is stored within the next 5 ms, too, and for slow commits.
            return min(self._poll_interval_seconds, max(SOON_SECONDS, 4 * self._pause_seconds))
        longer = max(FIRST_PAUSE_SECONDS, 2 * self._pause_seconds)
        if self._hints_come:
            longer = max(longer, self._poll_interval_seconds)
        if longer > self._poll_interval_seconds:
            self._quiet_looks += 1
        intervals = 2 if self._quiet_looks > QUIET_LOOKS else 1
        return min(longer, intervals * self._poll_interval_seconds)

    async def hand_back(self) -> None:
        """Nothing is held: what was picked was started."""

    async def close(self) -> None:
        """Nothing to close."""


@contextmanager
def _kept(jobs: Sequence[StartedJob]) -> Iterator[None]:
    """Go on with *jobs*, which are started, whatever becomes of the next statement."""
    try:
        yield
    except StoreUnavailable:
        if not jobs:
            raise
