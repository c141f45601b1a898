"""Run one attempt of one job, from its start to its recorded outcome.

The consumer begins an attempt for every job it has started. A failing handler
is not an error here; it is an outcome like any other. If the lease was lost
while the handler ran, the outcome is dropped and nothing is written.

    late              the attempt started after its deadline: what is registered with `on_missed`
                      decides, else the use case's policy, whether the handler is called
    handler runs      inside the attempt's task, beside the heartbeat thread
    out of time       the time-out of its registration ends it like an error it raised
    interrupted       by `interrupt(why)`: the operator cancelled, the lease was lost, or the
                      worker is stopping; the handler sees CancelledError at its next await,
                      once for each reason, so that it can end in order
    decided           `core.outcome.decide`: pure
    recorded          through the recorder, which writes many outcomes in one statement; from
                      here on a stop waits for the write
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from async_jobs.core.lateness import RUN_LATE, LatenessPolicy
from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import (
    Ending,
    Interrupted,
    Interruption,
    Outcome,
    Raised,
    Returned,
    decide,
    end_late,
)
from async_jobs.core.record import plain_error
from async_jobs.core.slo import Slack
from async_jobs.errors import UnknownType
from async_jobs.failpoints import reach
from async_jobs.models import EnqueueFromHandler, JobContext, JobStatus, OnLate, StartedJob
from async_jobs.registry import Handler, JobRegistry
from async_jobs.telemetry import events as ev
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.logs import job_fields

UNKNOWN_TYPE_DELAY_SECONDS = 30.0

_handler_log = logging.getLogger("async_jobs.handler")

Record = Callable[[StartedJob, Outcome], Awaitable[bool]]


class Attempt:
    """One run of a handler."""

    def __init__(
        self,
        job: StartedJob,
        registry: JobRegistry,
        record: Record,
        *,
        enqueuer: EnqueueFromHandler,
        bus: Bus,
        lateness: LatenessPolicy = RUN_LATE,
    ) -> None:
        self.job = job
        self._lateness = lateness
        self._registry = registry
        self._record = record
        self._enqueuer = enqueuer
        self._bus = bus
        self._handler_task: asyncio.Task[object] | None = None
        self._reasons: list[Interruption | None] = []

    def interrupt(self, why: Interruption | None) -> None:
        """End the handler before its time; None says that the lease is lost."""
        if why in self._reasons:
            return
        self._reasons.append(why)
        if self._handler_task is not None:
            self._handler_task.cancel()

    @property
    def _lost(self) -> bool:
        return None in self._reasons

    async def run(self) -> Outcome | None:
        """Run the handler and record how it ended; None if the lease was lost on the way."""
        began = time.monotonic()
        outcome = await self._outcome(began)
        await reach("worker.after_handler")
        recorded = not self._lost and await self._record(self.job, outcome)
        await reach("worker.after_record")
        self._tell(outcome if recorded else None, time.monotonic() - began)
        return outcome if recorded else None

    def _tell(self, outcome: Outcome | None, ran_seconds: float) -> None:
        facts: dict[str, Any] = {**_facts(self.job), "ran_seconds": ran_seconds}
        if outcome is None:
            self._bus.emit(ev.LeaseLost(**facts))
            return
        facts["error"] = outcome.error
        facts["slack"] = _slack_at_end(self.job, ran_seconds)
        if outcome.move in (Move.RETRY, Move.SNOOZE):
            facts["delay_seconds"] = outcome.delay_seconds
        if outcome.move in (Move.RETRY, Move.END_LATE):
            facts["late_by_seconds"] = outcome.late_by_seconds
        if outcome.move is Move.END_LATE:
            facts["dead"] = outcome.status is JobStatus.DEAD
        self._bus.emit(_EVENTS[outcome.move](**facts))

    async def _outcome(self, began: float) -> Outcome:
        try:
            handler = self._registry.handler_for(self.job.type)
        except UnknownType as unknown:
            return _no_handler(self.job, unknown)
        on_late, ending = await self._when_late()
        if on_late is not OnLate.RUN:
            return end_late(self.job, on_late)
        if ending is None:
            ending = await self._ending(handler)
        return decide(
            self.job,
            ending,
            random=random.random(),
            ran_seconds=time.monotonic() - began,
            late_retry=self._lateness.late_retry,
        )

    async def _when_late(self) -> tuple[OnLate, Ending | None]:
        """Whether a job that is late is run, or how what decides that has ended the attempt."""
        job = self.job
        if job.lateness_seconds <= 0:
            return OnLate.RUN, None
        missed = self._registry.missed_for(job.type, job.use_case)
        if missed is None:
            return self._lateness.on_late, None
        ending = await self._ending(missed)
        if not isinstance(ending, Returned):
            return OnLate.RUN, ending
        try:
            return OnLate(str(ending.value)), None
        except ValueError:
            return OnLate.RUN, Raised(_no_decision(missed))

    async def _ending(self, handler: Handler) -> Ending:
        """Call the handler; whatever it does, its ending is a value, not an exception."""
        if self._reasons:
            return self._interrupted()
        task = self._handler_task = asyncio.current_task()
        labels = self._labels()
        limit = asyncio.timeout(handler.timeout_seconds)
        logged_as = job_fields.set(labels)
        try:
            async with limit:
                await reach("worker.before_handler")
                return Returned(await handler(self._context(labels), self.job.payload))
        except asyncio.CancelledError as error:
            return self._interrupted() if self._reasons else Raised(error)
        except TimeoutError as error:
            return Raised(_out_of_time(handler, error) if limit.expired() else error)
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
            # A handler may end itself, not the process.
            return Raised(RuntimeError(f"the handler raised {type(error).__name__}"))
        except BaseException as error:
            return Raised(error)
        finally:
            job_fields.reset(logged_as)
            self._handler_task = None
            while task is not None and task.cancelling():
                task.uncancel()

    def _interrupted(self) -> Ending:
        cancelled = Interruption.CANCELLED in self._reasons
        return Interrupted(Interruption.CANCELLED if cancelled else Interruption.STOPPING)

    def _labels(self) -> dict[str, str]:
        job = self.job
        return {
            "job_id": str(job.id),
            "tenant_id": job.tenant_id,
            "use_case": job.use_case,
            "type": job.type,
            "attempt": str(job.attempts),
        }

    def _context(self, labels: dict[str, str]) -> JobContext:
        job = self.job
        return JobContext(
            job_id=job.id,
            tenant_id=job.tenant_id,
            use_case=job.use_case,
            type=job.type,
            queue=job.queue,
            attempt=job.attempts,
            max_attempts=job.max_attempts,
            run_at=job.run_at,
            deadline_at=job.deadline_at,
            lease_seq=job.lease_seq,
            log=logging.LoggerAdapter(_handler_log, labels),
            enqueuer=self._enqueuer,
        )


def _out_of_time(handler: Handler, where: TimeoutError) -> TimeoutError:
    late = TimeoutError(
        f"the handler took longer than its time-out of {handler.timeout_seconds:g} s"
    )
    late.__cause__ = where
    return late


def _no_decision(missed: Handler) -> TypeError:
    return TypeError(
        f"what is registered with on_missed for {missed.type!r} returned no decision; return "
        "OnLate.RUN, OnLate.DROP or OnLate.DEAD (or run, drop or dead as text), or raise Cancel, "
        "Bury, Retry or Snooze"
    )


def _no_handler(job: StartedJob, unknown: UnknownType) -> Outcome:
    """Another worker may know the type, so the job goes back; the attempt is not used."""
    return Outcome(
        move=Move.RELEASE,
        status=JobStatus.PENDING,
        delay_seconds=UNKNOWN_TYPE_DELAY_SECONDS,
        gives_attempt_back=True,
        error=plain_error("UnknownType", str(unknown), attempt=job.attempts),
    )


def _facts(job: StartedJob) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "tenant_id": job.tenant_id,
        "use_case": job.use_case,
        "type": job.type,
        "queue": job.queue,
        "attempt": job.attempts,
    }


def _slack_at_end(job: StartedJob, ran_seconds: float) -> Slack:
    at_start = (job.promised_at - job.started_at).total_seconds()
    return Slack(job.tenant_id, at_start - ran_seconds, job.tolerance_seconds)


def started_event(job: StartedJob) -> ev.JobStarted:
    """The fact that *job* was started."""
    return ev.JobStarted(
        **_facts(job),
        waited_seconds=job.waited_seconds,
        lateness_seconds=job.lateness_seconds,
        tolerance_seconds=job.tolerance_seconds,
        is_first=job.is_first_start,
    )


_EVENTS: dict[Move, type[ev.JobEnded]] = {
    Move.SUCCEED: ev.JobSucceeded,
    Move.RETRY: ev.JobRetried,
    Move.SNOOZE: ev.JobSnoozed,
    Move.BURY: ev.JobBuried,
    Move.CANCEL: ev.JobCancelled,
    Move.END_LATE: ev.JobEndedLate,
    Move.RELEASE: ev.JobReleased,
}
