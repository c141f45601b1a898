"""Keeps the leases of running attempts alive, from a thread of its own.

A handler that blocks the event loop (a long computation, `time.sleep`) must not
cost its neighbours their leases, so nothing here needs the loop: one statement
per beat renews all leases and tells which cancels were asked for.

    a lease did not come back    another process has the job: its attempt is interrupted, and
                                 its outcome will be dropped
    a cancel was asked for       its attempt is interrupted and ends as cancelled
    the database is away         tried again every second; attempts whose leases are about to
                                 run out are interrupted, because from then on the job may run
                                 elsewhere. The event loop looks for them, too: a call to a
                                 silent database may keep the thread
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from async_jobs.core.outcome import Interruption
from async_jobs.failpoints import reach_in_thread

RETRY_SECONDS = 1.0
STOP_SECONDS = 2.0

Interrupt = Callable[[UUID, int, Interruption | None], None]


class Keeper(Protocol):
    """The store's move that the heartbeat makes."""

    def extend(self, held: Mapping[UUID, int], *, lease_seconds: float) -> dict[UUID, bool]: ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Held:
    """A lease, and the monotonic time at which its start was asked for."""

    job_id: UUID
    lease_seq: int
    asked_at: float


class Heartbeat:
    """Renews every lease given to `hold` until it is dropped."""

    def __init__(
        self,
        keeper: Keeper,
        *,
        interval_seconds: float,
        lease_seconds: float,
        interrupt: Interrupt,
        failed: Callable[[BaseException], None],
    ) -> None:
        # By the number of the id: Python takes ten times as long to hash a UUID.
        self._held: dict[int, _Held] = {}
        self._renewed_at: dict[_Held, float] = {}
        self._keeper = keeper
        self._interval_seconds = interval_seconds
        self._lease_seconds = lease_seconds
        self._look_every_seconds = min(RETRY_SECONDS, lease_seconds / 10)
        self._interrupt = interrupt
        self._failed = failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="async-jobs-heartbeat", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat; call from the event loop whose attempts it interrupts."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a beat under way is waited for, but not for long."""
        self._stop.set()
        if self._looking is not None:
            self._looking.cancel()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def hold(self, job_id: UUID, lease_seq: int, *, asked_at: float) -> None:
        """Renew this lease from now on; its start was asked for at the monotonic *asked_at*."""
        self._held[job_id.int] = _Held(job_id, lease_seq, asked_at)
        if self._looking is None:
            self._look_later()

    def drop(self, job_id: UUID, lease_seq: int) -> None:
        """Renew this lease no more; a later lease of the same job stays held."""
        held = self._held.get(job_id.int)
        if held is not None and held.lease_seq == lease_seq:
            del self._held[job_id.int]

    def is_live(self, job_id: UUID, lease_seq: int) -> bool:
        """Whether this lease is held and cannot have run out yet."""
        held = self._held.get(job_id.int)
        if held is None or held.lease_seq != lease_seq:
            return False
        return time.monotonic() < self._renewed_at.get(held, held.asked_at) + self._lease_seconds

    def _look(self) -> None:
        """From the event loop, again and again while anything is held."""
        self._looking = None
        if self._held:
            self._give_up(self._all_held(), doubtful_in=2 * self._look_every_seconds)
            self._look_later()

    def _look_later(self) -> None:
        if self._loop is not None and not self._stop.is_set():
            self._looking = self._loop.call_later(self._look_every_seconds, self._look)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def has_died(self) -> bool:
        """Whether the thread ended without being told to."""
        started = self._loop is not None
        return started and not self.is_alive and not self._stop.is_set()

    def _run(self) -> None:
        pause = self._interval_seconds
        while not self._stop.wait(pause):
            pause = self._guarded_beat()
        self._keeper.close()

    def _guarded_beat(self) -> float:
        """A beat, whatever happens in it: a heartbeat that ends would cost every lease."""
        try:
            return self._beat()
        except BaseException as error:
            self._call(self._failed, error)
            # Before the next beat.
            self._give_up(
                self._all_held(), doubtful_in=2 * min(RETRY_SECONDS, self._interval_seconds)
            )
            return min(RETRY_SECONDS, self._interval_seconds)

    def _beat(self) -> float:
        """Renew once; seconds until the next beat."""
        held = {one.job_id: one for one in self._all_held()}
        if not held:
            return self._interval_seconds
        asked_at = time.monotonic()
        leases = {job_id: one.lease_seq for job_id, one in held.items()}
        reach_in_thread("heartbeat.before_extend")
        ours = self._keeper.extend(leases, lease_seconds=self._lease_seconds)
        reach_in_thread("heartbeat.after_extend")
        for job_id, one in held.items():
            if job_id not in ours:
                self._call(self._interrupt, job_id, one.lease_seq, None)
            elif ours[job_id]:
                self._call(self._interrupt, job_id, one.lease_seq, Interruption.CANCELLED)
        self._renewed_at = {held[job_id]: asked_at for job_id in ours}
        return self._interval_seconds

    def _all_held(self) -> Collection[_Held]:
        """As of now: the event loop and the heartbeat's thread both ask."""
        return self._held.copy().values()

    def _give_up(self, held: Collection[_Held], *, doubtful_in: float) -> None:
        """Interrupt what may run elsewhere within *doubtful_in* seconds."""
        doubtful_from = time.monotonic() + doubtful_in
        for one in held:
            if self._renewed_at.get(one, one.asked_at) + self._lease_seconds <= doubtful_from:
                self._call(self._interrupt, one.job_id, one.lease_seq, None)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(function, *args)
