"""Run one attempt of one job, from its start to its recorded outcome.

The consumer begins an attempt for every job it has started. A failing handler
is not an error here; it is an outcome like any other. If the lease was lost
while the handler ran, the outcome is dropped and nothing is written.

    late              the attempt started after its deadline: what is registered with `on_missed`
                      decides, else the use case's policy, whether the handler is called
    handler runs      inside the attempt's task, beside the heartbeat thread
    out of time       the time-out of its registration, or the job's own if that is less, ends it
                      like an error it raised
    interrupted       by `interrupt(why)`: the operator cancelled, the lease was lost, or the
                      worker is stopping; the handler sees CancelledError at its next await,
                      once for each reason, so that it can end in order
    stuck             a handler that goes on all the same is left to itself after some seconds:
                      the outcome is decided without it, and its slot is free again
    decided           `core.outcome.decide`: pure
    handed over       to the recorder, which writes many outcomes in one statement; the attempt's
                      task ends here, so that a write costs no task a second awakening, and its
                      slot is free for the next handler
    recorded          the recorder tells whether the write took effect: the attempt tells the bus
                      and whoever began it
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
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
    bury,
    decide,
    end_late,
    no_handler,
    time_limit,
)
from async_jobs.core.record import plain_error
from async_jobs.core.slo import Slack
from async_jobs.errors import UnknownType
from async_jobs.failpoints import reach
from async_jobs.models import EnqueueFromHandler, JobContext, JobStatus, OnLate, StartedJob
from async_jobs.registry import Handler, JobRegistry
from async_jobs.telemetry import events as ev
from async_jobs.telemetry import traces
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.logs import current_job, job_labels

STUCK_AFTER_SECONDS = 5.0
"""How long a handler may go on after it was told to end."""

_handler_log = logging.getLogger("async_jobs.handler")

Told = Callable[[bool], None]
Record = Callable[[StartedJob, Outcome, Told], None]
"""Writes an outcome down and then tells whether that took effect."""


def _nobody(attempt: Attempt) -> None:
    """Nobody waits for the end."""


class Attempt:
    """One run of a handler.

    `outcome` is what was recorded: None until then, and for ever if the lease was lost.
    """

    def __init__(
        self,
        job: StartedJob,
        registry: JobRegistry,
        record: Record,
        *,
        enqueuer: EnqueueFromHandler,
        bus: Bus,
        lateness: LatenessPolicy = RUN_LATE,
        handed_over: Callable[[Attempt], None] = _nobody,
        ended: Callable[[Attempt], None] = _nobody,
    ) -> None:
        self.job = job
        self.outcome: Outcome | None = None
        self.is_handed_over = False
        self._handed_over = handed_over
        self._ended = ended
        self._lateness = lateness
        self._registry = registry
        self._record = record
        self._enqueuer = enqueuer
        self._bus = bus
        self._trace: traces.Processing | None = None
        self._handler_task: asyncio.Task[object] | None = None
        self._reasons: list[Interruption | None] = []
        self._began = time.monotonic()
        self._timers: list[asyncio.TimerHandle] = []
        self._out_of_time: TimeoutError | None = None
        self._left = False

    def interrupt(self, why: Interruption | None) -> None:
        """End the handler before its time; None says that the lease is lost."""
        if why in self._reasons:
            return
        self._reasons.append(why)
        self._cancel_handler()

    def leave(self) -> None:
        """Decide without the handler, which was told to end and does not; it goes on by itself."""
        if self._left or self._handler_task is None:
            return
        self._left = True
        ran_seconds = time.monotonic() - self._began
        self._bus.emit(ev.HandlerStuck(**_facts(self.job), ran_seconds=ran_seconds))
        late = None if self._reasons else self._out_of_time
        ending = self._interrupted() if late is None else Raised(late)
        self._hand_over(self._decided(ending), ran_seconds)

    @property
    def _lost(self) -> bool:
        return None in self._reasons

    async def run(self) -> None:
        """Run the handler and hand over how it ended; `ended` is called once that is written."""
        self._began = time.monotonic()
        self._trace = trace = traces.process(self.job)
        outcome = await (self._outcome() if trace is None else trace.around(self._outcome()))
        ran_seconds = time.monotonic() - self._began
        if self._left:
            self._bus.emit(ev.StuckHandlerEnded(**_facts(self.job), ran_seconds=ran_seconds))
            return
        await reach("worker.after_handler")
        self._hand_over(outcome, ran_seconds)

    def _hand_over(self, outcome: Outcome, ran_seconds: float) -> None:
        self.is_handed_over = True
        self._handed_over(self)
        if self._lost:
            self._finish(None, ran_seconds)
        else:
            self._record(
                self.job,
                outcome,
                lambda recorded: self._finish(outcome if recorded else None, ran_seconds),
            )

    def _finish(self, outcome: Outcome | None, ran_seconds: float) -> None:
        self.outcome = outcome
        if self._trace is not None:
            self._trace.recorded(outcome)
        self._bus.emit(_ended_event(self.job, outcome, ran_seconds))
        self._ended(self)

    async def _outcome(self) -> Outcome:
        if self.job.unreadable:
            return _unreadable(self.job)
        try:
            handler = self._registry.handler_for(self.job.type)
        except UnknownType as unknown:
            self._bus.emit(ev.HandlerMissing(**_facts(self.job)))
            return no_handler(self.job, unknown, random=random.random())
        ending: Ending | None = None
        if self.job.started_at > self.job.deadline_at:
            on_late, ending = await self._when_late()
            if on_late is not OnLate.RUN:
                return end_late(self.job, on_late)
        if ending is None:
            ending = await self._ending(handler)
        return self._decided(ending)

    def _decided(self, ending: Ending) -> Outcome:
        try:
            return self._decide(ending)
        except Exception as error:
            # What a handler raises or returns may itself raise wherever it is looked at.
            return self._decide(Raised(error))

    def _decide(self, ending: Ending) -> Outcome:
        return decide(
            self.job,
            ending,
            random=random.random(),
            ran_seconds=time.monotonic() - self._began,
            late_retry=self._lateness.late_retry,
        )

    async def _when_late(self) -> tuple[OnLate, Ending | None]:
        """Whether a job that is late is run, or how what decides that has ended the attempt."""
        missed = self._registry.missed_for(self.job.type, self.job.use_case)
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
        if (seconds := time_limit(handler.timeout_seconds, self.job.timeout_seconds)) is not None:
            self._call_later(seconds, self._time_out, seconds)
        logged_as = current_job.set(self.job)
        try:
            await reach("worker.before_handler")
            context = self._context() if handler.takes_context else None
            return Returned(await handler(context, self.job.payload))
        except asyncio.CancelledError as error:
            if self._reasons:
                return self._interrupted()
            return self._late_or(error)
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
            # A handler may end itself, not the process.
            return Raised(RuntimeError(f"the handler raised {type(error).__name__}"))
        except BaseException as error:
            return Raised(error)
        finally:
            current_job.reset(logged_as)
            self._handler_task = None
            for timer in self._timers:
                timer.cancel()
            while task is not None and task.cancelling():
                task.uncancel()

    def _late_or(self, error: BaseException) -> Ending:
        """Out of time, if that is why the handler was cancelled; it says where it was then."""
        if self._out_of_time is None:
            return Raised(error)
        self._out_of_time.__cause__ = error
        return Raised(self._out_of_time)

    @property
    def is_left(self) -> bool:
        """Whether the handler is stuck and was left to itself."""
        return self._left

    def _time_out(self, seconds: float) -> None:
        self._out_of_time = TimeoutError(
            f"the handler took longer than its time-out of {seconds:g} s"
        )
        self._cancel_handler()

    def _cancel_handler(self) -> None:
        if self._handler_task is not None:
            self._handler_task.cancel()
            self._call_later(STUCK_AFTER_SECONDS, self.leave)

    def _call_later(self, seconds: float, function: Callable[..., None], *given: object) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, function, *given))

    def _interrupted(self) -> Ending:
        cancelled = Interruption.CANCELLED in self._reasons
        return Interrupted(Interruption.CANCELLED if cancelled else Interruption.STOPPING)

    def _context(self) -> JobContext:
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
            log=logging.LoggerAdapter(_handler_log, job_labels(job)),
            enqueuer=self._enqueuer,
        )


def _no_decision(missed: Handler) -> TypeError:
    return TypeError(
        f"what is registered with on_missed for {missed.type!r} returned no decision; return "
        "OnLate.RUN, OnLate.DROP or OnLate.DEAD (or run, drop or dead as text), or raise Cancel, "
        "Bury, Retry or Snooze"
    )


def _unreadable(job: StartedJob) -> Outcome:
    """No attempt will ever read it, so the job is dead at once."""
    text = f"the payload cannot be read ({job.unreadable}); it was not written through this library"
    return bury(job, plain_error("UnreadablePayload", text, attempt=job.attempts))


def _facts(job: StartedJob) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "tenant_id": job.tenant_id,
        "use_case": job.use_case,
        "type": job.type,
        "queue": job.queue,
        "attempt": job.attempts,
    }


def _ended_event(job: StartedJob, outcome: Outcome | None, ran_seconds: float) -> ev.JobEnded:
    """The fact that *job* ended with *outcome*, or that it had lost its lease."""
    if outcome is None:
        return ev.LeaseLost(**_facts(job), ran_seconds=ran_seconds)
    slack = _slack_at_end(job, ran_seconds)
    if outcome.move is Move.SUCCEED:
        # As nearly all do: without a dictionary in between.
        return ev.JobSucceeded(
            job_id=job.id,
            tenant_id=job.tenant_id,
            use_case=job.use_case,
            type=job.type,
            queue=job.queue,
            attempt=job.attempts,
            ran_seconds=ran_seconds,
            slack=slack,
        )
    facts = _facts(job)
    facts |= {"ran_seconds": ran_seconds, "slack": slack, "error": outcome.error}
    if outcome.move in (Move.RETRY, Move.SNOOZE):
        facts["delay_seconds"] = outcome.delay_seconds
    if outcome.move in (Move.RETRY, Move.END_LATE):
        facts["late_by_seconds"] = outcome.late_by_seconds
    if outcome.move is Move.END_LATE:
        facts["dead"] = outcome.status is JobStatus.DEAD
    return _EVENTS[outcome.move](**facts)


def _slack_at_end(job: StartedJob, ran_seconds: float) -> Slack:
    at_start = (job.promised_at - job.started_at).total_seconds()
    return Slack(job.tenant_id, at_start - ran_seconds, job.tolerance_seconds)


def started_event(job: StartedJob) -> ev.JobStarted:
    """The fact that *job* was started."""
    return ev.JobStarted(
        job_id=job.id,
        tenant_id=job.tenant_id,
        use_case=job.use_case,
        type=job.type,
        queue=job.queue,
        attempt=job.attempts,
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
