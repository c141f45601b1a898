"""The worker: takes jobs from its receivers, runs their handlers, records how they ended.

    consumers   one loop per receiver, all sharing the slots
    attempts    a task each, up to the concurrency
    recorder    writes outcomes, many in one statement
    reporter    tells schedulers what fails, once a second at most
    heartbeat   a thread, renews the leases of what runs

Stopping, in this order, so that nothing is lost and little is repeated:

    1  consumers stop; a long poll under way is let finish; what was received and not started
       is handed back
    2  running attempts get the grace period
    3  what still runs is interrupted and released: pending at once, the attempt not used
    4  the recorder writes the last outcomes; the heartbeat ends after that
    5  handlers that ignore their interruption are left behind

A long poll that outlasts the grace is left behind, too: what it may bring is leased again when
its leases run out. Asked a second time, it waits for nothing that it can interrupt: no grace, no
long poll.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

from async_jobs.core.lateness import RUN_LATE, LatenessPolicy
from async_jobs.core.outcome import Interruption
from async_jobs.models import EnqueueFromHandler, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.runtime.health import PASS_SECONDS, Health
from async_jobs.runtime.loop import Loop
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import LoopFailed, ProcessStopping
from async_jobs.transport.ports import Receiver
from async_jobs.worker.attempt import Attempt, started_event
from async_jobs.worker.consumer import Consumer
from async_jobs.worker.heartbeat import Heartbeat, Keeper
from async_jobs.worker.recorder import FinishDesk, Recorder
from async_jobs.worker.reporter import ReportDesk, Reporter
from async_jobs.worker.slots import Slots

LAST_WORDS_SECONDS = 1.0
"""How long a handler that is interrupted by a stop may take to end."""
LAST_RECORDS_SECONDS = 3.0
"""How long the last outcomes may take to be written."""
LAST_POLL_SECONDS = 0.5
"""How much longer than the grace a long poll may take to end."""
LONGEST_INTAKE_SECONDS = 25.0 + PASS_SECONDS
"""A long poll that the server answers late, and then the start of what it brought."""

_NO_POLICIES: Mapping[str, LatenessPolicy] = MappingProxyType({})


class WorkerDesk(FinishDesk, ReportDesk, Protocol):
    """The store's moves that a worker makes."""


class Worker:
    """Runs handlers until stopped."""

    def __init__(
        self,
        name: str,
        desk: WorkerDesk,
        keeper: Keeper,
        receivers: Sequence[Receiver],
        registry: JobRegistry,
        *,
        concurrency: int,
        lease_seconds: float,
        heartbeat_interval_seconds: float,
        enqueuer: EnqueueFromHandler,
        bus: Bus,
        lateness: Mapping[str, LatenessPolicy] = _NO_POLICIES,
    ) -> None:
        self.name = name
        self._lateness = lateness
        self._registry = registry
        self._enqueuer = enqueuer
        self._bus = bus
        self._slots = Slots(concurrency)
        self._recorder = Recorder(desk, lease_seconds=lease_seconds, bus=bus)
        self._reporter = Reporter(desk, lambda: self._reporting.wake())
        self._reporting = Loop("report of failures", self._reporter.tick, bus=bus)
        self._heartbeat = Heartbeat(
            keeper,
            interval_seconds=heartbeat_interval_seconds,
            lease_seconds=lease_seconds,
            interrupt=self._interrupt,
            failed=self._heartbeat_failed,
        )
        self._attempts: dict[tuple[int, int], Attempt] = {}
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._grace_seconds = 0.0
        self._intakes = [self._intake(number, one) for number, one in enumerate(receivers)]

    @property
    def loops(self) -> list[Loop]:
        """Every loop, for health checks."""
        return [loop for _, loop in self._intakes]

    def tell(self, health: Health) -> None:
        """Let *health* know what has to turn and to live in this worker."""
        health.watch(self.loops, pass_seconds=LONGEST_INTAKE_SECONDS)
        health.watch([self._reporting])
        health.check(lambda: "the heartbeat thread is dead" if self._heartbeat.has_died else "")
        health.check(self._too_many_stuck)

    def _too_many_stuck(self) -> str:
        """Handlers that do not end keep memory, threads and connections; so many are too many."""
        stuck = sum(attempt.is_left for attempt in list(self._tasks))
        return f"{stuck} handlers are stuck" if stuck >= self._slots.concurrency else ""

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return len(self._attempts)

    def stop(self, *, grace_seconds: float) -> None:
        """Let `run` return; called a second time it interrupts what still runs at once."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._grace_seconds = grace_seconds
        self._stop_asked.set()

    async def run(self) -> None:
        """Work until `stop`."""
        self._heartbeat.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._recorder.run())
                tasks.create_task(self._reporting.run())
                taking_in = [tasks.create_task(self._take_in(*one)) for one in self._intakes]
                await self._stop_asked.wait()
                for _, loop in self._intakes:
                    loop.stop()
                self._bus.emit(ProcessStopping(role="worker", name=self.name, running=self.running))
                await self._finish(taking_in)
                self._recorder.stop(within_seconds=LAST_RECORDS_SECONDS)
                self._reporting.stop()
        finally:
            self._heartbeat.stop()

    def _intake(self, number: int, receiver: Receiver) -> tuple[Consumer, Loop]:
        consumer = Consumer(receiver, self._slots, self._begin, stopping=self._stop_asked.is_set)
        return consumer, Loop(f"intake {number + 1}", consumer.tick, bus=self._bus)

    async def _take_in(self, consumer: Consumer, loop: Loop) -> None:
        await loop.run()
        try:
            await consumer.stop()
        except Exception as error:
            # What could not be handed back comes back by itself when its lease runs out.
            self._bus.emit(
                LoopFailed(loop=loop.name, error=error, failures=1, retry_in_seconds=0.0)
            )

    def _begin(self, job: StartedJob, asked_at: float) -> None:
        attempt = Attempt(
            job,
            self._registry,
            self._recorder.record,
            enqueuer=self._enqueuer,
            bus=self._bus,
            lateness=self._lateness.get(job.use_case, RUN_LATE),
            handed_over=self._handed_over,
            ended=self._ended,
        )
        self._attempts[job.id.int, job.lease_seq] = attempt
        self._heartbeat.hold(job.id, job.lease_seq, asked_at=asked_at)
        self._bus.emit(started_event(job))
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(attempt), name=_task_name(job.type))
        if not task.done():
            self._tasks[attempt] = task

    async def _run(self, attempt: Attempt) -> None:
        if not self._heartbeat.is_live(attempt.job.id, attempt.job.lease_seq):
            # The loop was blocked, or the process stopped: the job may run elsewhere by now.
            attempt.interrupt(None)
        try:
            await attempt.run()
        except BaseException:
            if not attempt.is_handed_over:
                self._handed_over(attempt)
            self._ended(attempt)
            raise
        finally:
            self._tasks.pop(attempt, None)

    def _handed_over(self, attempt: Attempt) -> None:
        self._slots.hand_over()

    def _ended(self, attempt: Attempt) -> None:
        """The outcome is on the row, or will never be."""
        job = attempt.job
        if self._attempts.pop((job.id.int, job.lease_seq), None) is None:
            return
        if attempt.outcome is not None:
            self._reporter.count(job, attempt.outcome)
        self._heartbeat.drop(job.id, job.lease_seq)
        self._slots.written()

    def _interrupt(self, job_id: UUID, lease_seq: int, why: Interruption | None) -> None:
        if attempt := self._attempts.get((job_id.int, lease_seq)):
            attempt.interrupt(why)

    async def _finish(self, taking_in: Sequence[asyncio.Task[None]]) -> None:
        """Let attempts and intakes end, in the order that the module describes."""
        grace_ends_at = time.monotonic() + self._grace_seconds
        await self._drain(grace_ends_at)
        until = max(grace_ends_at, time.monotonic()) + LAST_POLL_SECONDS
        if not await self._unless_hurried(taking_in, until=until):
            for task in taking_in:
                task.cancel()
        # An intake that was just starting jobs has begun their attempts by now.
        await self._drain(grace_ends_at)

    async def _drain(self, grace_ends_at: float) -> None:
        # Again, because an intake under way may begin attempts while others end.
        while tasks := self._not_left():
            if not await self._unless_hurried(tasks, until=grace_ends_at):
                break
        for attempt in list(self._attempts.values()):
            attempt.interrupt(Interruption.STOPPING)
        if tasks := self._not_left():
            await asyncio.wait(tasks, timeout=LAST_WORDS_SECONDS)
        for attempt in list(self._attempts.values()):
            attempt.leave()

    def _not_left(self) -> list[asyncio.Task[None]]:
        return [task for attempt, task in self._tasks.items() if not attempt.is_left]

    async def _unless_hurried(
        self, tasks: Collection[asyncio.Task[None]], *, until: float | None = None
    ) -> bool:
        """Wait for *tasks*; whether all ended before *until* and before the second `stop`."""
        hurry = asyncio.ensure_future(self._hurry.wait())
        left = set(tasks)
        try:
            async with asyncio.timeout(None if until is None else until - time.monotonic()):
                while left and not hurry.done():
                    await asyncio.wait({*left, hurry}, return_when=asyncio.FIRST_COMPLETED)
                    left = {task for task in left if not task.done()}
        except TimeoutError:
            pass
        finally:
            hurry.cancel()
        return not left

    def _heartbeat_failed(self, error: BaseException) -> None:
        self._bus.emit(LoopFailed(loop="heartbeat", error=error, failures=1, retry_in_seconds=1.0))


@lru_cache(maxsize=1_000)
def _task_name(type: str) -> str:
    """What a warning about a blocked event loop says."""
    return f"a handler of type {type!r}"
