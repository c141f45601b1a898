"""Brings jobs in from one receiver while slots are free, and begins their attempts.

    wait for a free slot → wait for the bell → claim what is free → start → begin attempts

Slots are claimed only for the moment of the start, so that an idle queue's long
poll keeps no slot from another queue. Tickets that came in and found no slot
within a second are handed back: some other worker may be idle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from async_jobs.failpoints import reach
from async_jobs.models import StartedJob
from async_jobs.telemetry import traces
from async_jobs.transport.ports import Receiver
from async_jobs.worker.slots import Slots

HOLD_SECONDS = 1.0


class Begin(Protocol):
    """Begins the attempt of a started job, which holds one slot until it ends.

    *asked_at* is the monotonic time from which its lease lasts at least.
    """

    def __call__(self, job: StartedJob, asked_at: float) -> None: ...


class Consumer:
    """One receiver's intake; `tick` is what its loop calls."""

    def __init__(
        self, receiver: Receiver, slots: Slots, begin: Begin, *, stopping: Callable[[], bool]
    ) -> None:
        self._receiver = receiver
        self._slots = slots
        self._begin = begin
        self._stopping = stopping

    async def tick(self) -> float:
        """Bring in what there is; seconds until the next try."""
        if not await self._slot_free():
            return 0.0
        await self._receiver.wait(self._slots.free)
        if self._stopping():
            return 0.0
        await self._start()
        return 0.0

    async def _slot_free(self) -> bool:
        if self._slots.free:
            return True
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                await self._slots.wait_free()
        except TimeoutError:
            await self._receiver.hand_back()
            return False
        return True

    async def _start(self) -> None:
        unused = self._slots.claim()
        asked_at, asked_ns = time.monotonic(), time.time_ns()
        try:
            jobs = await self._receiver.start(unused) if unused else []
            self._slots.give_back(unused - len(jobs))
            unused = len(jobs)
            if jobs:
                traces.started(jobs, since_ns=asked_ns)
                await reach("worker.after_start")
            for job in jobs:
                self._begin(job, asked_at)
                unused -= 1
        finally:
            # Jobs that were started and not begun are taken back when their leases run out.
            self._slots.give_back(unused)

    async def stop(self) -> None:
        """Hand back what was not started and finish with the queue."""
        await self._receiver.hand_back()
        await self._receiver.close()
