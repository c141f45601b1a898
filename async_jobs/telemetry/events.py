"""The catalogue of facts: one class for each thing that happened.

Names are in the past tense and follow the moves of `core/lifecycle.py`. The
store's callers emit them after the write is known to have taken effect; what
is made of them (log lines, metrics, spans, a dashboard) is the subscribers'
affair. They are read and never changed; not frozen, because a frozen one takes four times as
long to make, and each job makes two. `docs/reference/events.md` is printed from this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from async_jobs.core.slo import Slack


@dataclass(slots=True, kw_only=True)
class Event:
    """A fact."""


@dataclass(slots=True, kw_only=True)
class JobEvent(Event):
    """A fact about one job; `attempt` is the attempt it belongs to, 0 before the first."""

    job_id: UUID
    tenant_id: str
    use_case: str
    type: str
    queue: str
    attempt: int = 0


@dataclass(slots=True, kw_only=True)
class JobEnqueued(JobEvent):
    """A producer's job was stored, or an unfinished twin of it was found."""

    deduplicated: bool = False


@dataclass(slots=True, kw_only=True)
class JobStarted(JobEvent):
    """A worker started an attempt. `lateness_seconds` is negative when it was in time.

    `is_first`: no attempt of the job was started before, so now its promise is kept or broken.
    """

    waited_seconds: float
    lateness_seconds: float
    tolerance_seconds: float = 0.0
    is_first: bool = False


@dataclass(slots=True, kw_only=True)
class JobEnded(JobEvent):
    """An attempt ended and its outcome is on the row.

    `slack` is what was left then until the deadline first promised; None if nothing ran.
    """

    ran_seconds: float
    slack: Slack | None = field(default=None, repr=False)
    error: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(slots=True, kw_only=True)
class JobSucceeded(JobEnded):
    """The handler returned."""


@dataclass(slots=True, kw_only=True)
class JobRetried(JobEnded):
    """The attempt failed and another one follows after `delay_seconds`.

    `late_by_seconds` is how long after the promised deadline that will be, 0 if it is in time.
    """

    delay_seconds: float
    late_by_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class JobSnoozed(JobEnded):
    """The handler asked to be called again after `delay_seconds`."""

    delay_seconds: float


@dataclass(slots=True, kw_only=True)
class JobBuried(JobEnded):
    """The job was given up: it is dead."""


@dataclass(slots=True, kw_only=True)
class JobCancelled(JobEnded):
    """The job ended as cancelled."""


@dataclass(slots=True, kw_only=True)
class JobEndedLate(JobEnded):
    """A job whose deadline had passed was ended instead of run: dropped, or `dead`."""

    late_by_seconds: float
    dead: bool


@dataclass(slots=True, kw_only=True)
class JobReleased(JobEnded):
    """The attempt was given back: the worker is stopping or has no handler for the type."""


@dataclass(slots=True, kw_only=True)
class HandlerStuck(JobEvent):
    """A handler went on after it was told to end: its slot is free again, it is left to itself."""

    ran_seconds: float


@dataclass(slots=True, kw_only=True)
class StuckHandlerEnded(JobEvent):
    """A handler that had been left to itself has ended; what it returned counts no more."""

    ran_seconds: float


@dataclass(slots=True, kw_only=True)
class HandlerMissing(JobEvent):
    """A worker was given a job whose type it has no handler for; it gives the job back."""


@dataclass(slots=True, kw_only=True)
class LeaseLost(JobEnded):
    """The attempt ended, but its lease had been taken back: the outcome was dropped."""


@dataclass(slots=True, kw_only=True)
class JobRescued(JobEvent):
    """A worker was lost: the lease of a running attempt ran out. `dead`: that was the last one."""

    worker: str | None
    dead: bool


@dataclass(slots=True, kw_only=True)
class LeaseUnused(JobEvent):
    """A lease ran out before any worker started the job: it waits again, no attempt used."""


@dataclass(slots=True, kw_only=True)
class JobRequeued(JobEvent):
    """An operator put a finished job back."""


@dataclass(slots=True, kw_only=True)
class OperatorActed(JobEvent):
    """Somebody's cancel or requeue took effect: who it was, for the audit."""

    move: str
    actor: str


@dataclass(slots=True, kw_only=True)
class JobsLeased(Event):
    """One dispatch: `sent` jobs went on their way, `failed` came back at once."""

    use_case: str
    sent: int
    failed: int
    in_flight: int
    capacity: int
    slacks: Sequence[Slack] = field(default=(), repr=False)


@dataclass(slots=True, kw_only=True)
class PressureBegan(Event):
    """A waiting job of the use case is late: slots are now shared out fairly between tenants."""

    use_case: str


@dataclass(slots=True, kw_only=True)
class PressureEnded(Event):
    """No waiting job of the use case has been late for a while: deadlines alone decide again."""

    use_case: str
    lasted_seconds: float


@dataclass(slots=True, kw_only=True)
class SendFailed(Event):
    """A queue did not accept messages; their leases were released."""

    queue: str
    messages: int
    reason: str


@dataclass(slots=True, kw_only=True)
class MessageDropped(Event):
    """A message that is not ours, or cannot be read, was removed."""

    queue: str
    reason: str


@dataclass(slots=True, kw_only=True)
class JobsPruned(Event):
    """Finished jobs older than the retention were deleted."""

    use_case: str
    jobs: int


@dataclass(slots=True, kw_only=True)
class BreakerOpened(Event):
    """Jobs of this type and tenant fail too often: they wait, and one is tried now and then."""

    use_case: str
    tenant_id: str
    type: str
    ended: int
    failed: int


@dataclass(slots=True, kw_only=True)
class BreakerProbed(Event):
    """One job of a shut flow was leased to see whether it works again."""

    use_case: str
    tenant_id: str
    type: str


@dataclass(slots=True, kw_only=True)
class BreakerClosed(Event):
    """Jobs of this type and tenant are leased again: a probe succeeded, or none was there."""

    use_case: str
    tenant_id: str
    type: str
    open_seconds: float


@dataclass(slots=True, kw_only=True)
class CapacityLowered(Event):
    """Handlers reported backpressure: fewer jobs of this use case are in flight from now on."""

    use_case: str
    capacity: int
    full: int


@dataclass(slots=True, kw_only=True)
class CapacityRestored(Event):
    """No backpressure for a while: the use case has its configured capacity again."""

    use_case: str
    capacity: int


@dataclass(slots=True, kw_only=True)
class OverloadRefused(Event):
    """So many `jobs` of a tenant above its share were refused since this was last told."""

    use_case: str
    tenant_id: str
    jobs: int
    retry_after_seconds: float


@dataclass(slots=True, kw_only=True)
class LoopFailed(Event):
    """One pass of a loop failed; it goes on after `retry_in_seconds`."""

    loop: str
    error: BaseException
    failures: int
    retry_in_seconds: float


@dataclass(slots=True, kw_only=True)
class LoopRecovered(Event):
    """A loop that had failed works again."""

    loop: str
    failures: int


@dataclass(slots=True, kw_only=True)
class EventLoopBlocked(Event):
    """The event loop has not turned for `blocked_seconds`, because of `by`; told by a thread."""

    blocked_seconds: float
    by: str


@dataclass(slots=True, kw_only=True)
class HealthServed(Event):
    """Health checks are answered at `place`."""

    place: str


@dataclass(slots=True, kw_only=True)
class ProcessStarted(Event):
    """A scheduler or worker is ready."""

    role: str
    name: str
    detail: str


@dataclass(slots=True, kw_only=True)
class ProcessStopping(Event):
    """A scheduler or worker was asked to stop."""

    role: str
    name: str
    running: int = 0


@dataclass(slots=True, kw_only=True)
class ProcessStopped(Event):
    """A scheduler or worker has stopped."""

    role: str
    name: str


@dataclass(slots=True, kw_only=True)
class ProcessLeft(Event):
    """A scheduler or worker that was asked to stop did not end in time and leaves; by a thread."""

    role: str
    name: str


@dataclass(slots=True, kw_only=True)
class ProcessGaveUp(Event):
    """A scheduler or worker that could not work for too long leaves; told by a thread."""

    role: str
    name: str
    reason: str
