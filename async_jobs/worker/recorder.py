"""Writes the outcomes of many attempts in one statement.

There is no timer: while one statement is under way, the outcomes of attempts
that end in the meantime gather, and the next statement takes them all. Under
load batches grow by themselves; alone, an outcome is written at once.

If the database is away, outcomes are kept and tried again until their leases
have run out; by then another worker may have the job, and the fence would
refuse the write anyway. A worker that stops does not wait that long.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from async_jobs.core.outcome import Outcome
from async_jobs.errors import StoreUnavailable
from async_jobs.failpoints import reach
from async_jobs.models import JobStatus, StartedJob
from async_jobs.store.hints import LOOK_AT_EVERYTHING, Coalescer
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import LoopFailed

MOST_PER_STATEMENT = 500
RETRY_SECONDS = 0.5
HINT_WITHIN_SECONDS = 60.0


class FinishDesk(Protocol):
    """The store's move that the recorder makes."""

    async def finish(self, ended: Sequence[tuple[StartedJob, Outcome]]) -> set[UUID]: ...

    async def hint(self, topics: Sequence[str]) -> None: ...


@dataclass(slots=True, eq=False)
class _Entry:
    job: StartedJob
    outcome: Outcome
    told: Callable[[bool], None]
    give_up_at: float


class Recorder:
    """Gathers outcomes and writes them; `run` it beside the attempts."""

    def __init__(self, desk: FinishDesk, *, lease_seconds: float, bus: Bus) -> None:
        self._desk = desk
        self._lease_seconds = lease_seconds
        self._bus = bus
        self._coalescer = Coalescer()
        self._waiting: list[_Entry] = []
        self._more = asyncio.Event()
        self._stopping = False
        self._ended = False
        self._stop_by = math.inf

    def record(self, job: StartedJob, outcome: Outcome, told: Callable[[bool], None]) -> None:
        """Write *outcome* soon, then call *told*, which must not raise.

        With False if the job's lease was lost, or could not be kept until the write.
        """
        if self._ended:
            told(False)
            return
        give_up_at = time.monotonic() + self._lease_seconds
        self._waiting.append(_Entry(job, outcome, told, give_up_at))
        self._more.set()

    def stop(self, *, within_seconds: float) -> None:
        """Let `run` return when nothing is left to write, or it could not be written in time."""
        self._stopping = True
        self._stop_by = time.monotonic() + within_seconds
        self._more.set()

    async def run(self) -> None:
        while self._waiting or not self._stopping:
            await self._more.wait()
            batch = self._waiting[:MOST_PER_STATEMENT]
            del self._waiting[: len(batch)]
            if not self._waiting and not self._stopping:
                self._more.clear()
            if batch:
                await self._write(batch)
        self._ended = True

    async def _write(self, batch: Sequence[_Entry]) -> None:
        try:
            recorded = await self._desk.finish([(entry.job, entry.outcome) for entry in batch])
            await reach("worker.after_record")
        except StoreUnavailable as error:
            await self._keep(batch, error)
            return
        except Exception as error:
            await self._isolate(batch, error)
            return
        all_of_them = len(recorded) == len(batch)
        for entry in batch:
            entry.told(all_of_them or entry.job.id in recorded)
        await self._hint(batch)

    async def _hint(self, batch: Sequence[_Entry]) -> None:
        """Jobs that wait again soon would otherwise wait for the scheduler's interval."""
        topics = {_topic(entry) for entry in batch if _comes_back_soon(entry.outcome)}
        if fresh := self._coalescer.let_through(topics):
            with suppress(StoreUnavailable):
                await self._desk.hint(fresh)

    async def _keep(self, batch: Sequence[_Entry], error: StoreUnavailable) -> None:
        """Put the batch back for another try, but for those whose time is over."""
        now = time.monotonic()
        given_up = [entry for entry in batch if min(entry.give_up_at, self._stop_by) <= now]
        self._waiting[:0] = [entry for entry in batch if entry not in given_up]
        for entry in given_up:
            entry.told(False)
        self._told(error)
        await asyncio.sleep(RETRY_SECONDS * random.uniform(0.75, 1.25))
        self._more.set()

    async def _isolate(self, batch: Sequence[_Entry], error: Exception) -> None:
        """One outcome that the database refuses must not take its neighbours with it."""
        if len(batch) > 1:
            half = len(batch) // 2
            await self._write(batch[:half])
            await self._write(batch[half:])
            return
        self._told(error)
        batch[0].told(False)

    def _told(self, error: Exception) -> None:
        self._bus.emit(
            LoopFailed(
                loop="recording of outcomes",
                error=error,
                failures=1,
                retry_in_seconds=RETRY_SECONDS,
            )
        )


def _comes_back_soon(outcome: Outcome) -> bool:
    waits = outcome.status is JobStatus.PENDING
    return waits and (outcome.delay_seconds or 0.0) <= HINT_WITHIN_SECONDS


def _topic(entry: _Entry) -> str:
    return LOOK_AT_EVERYTHING if entry.outcome.delay_seconds else entry.job.use_case
