"""The nouns: what a job is, on its way in, in the table, in flight and in a handler.

Plain frozen data; what comes from the table by the thousand is a named tuple, which is made
in a quarter of the time. Times are timezone-aware datetimes and end in `_at`;
durations are float seconds and end in `_seconds`. Nothing here reads a clock,
talks to a database or writes a log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Required, TypedDict
from uuid import UUID

from async_jobs.ids import new_job_id as new_job_id

if TYPE_CHECKING:
    import logging

    Log = logging.LoggerAdapter[logging.Logger]

Json = dict[str, Any]


class JobStatus(StrEnum):
    """What `jobs.status` may hold. Scheduled, waiting and leased are kinds of pending."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class BackoffType(StrEnum):
    """How the wait grows from one failed attempt to the next."""

    CONSTANT = "constant"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class OnLate(StrEnum):
    """What becomes of a job whose deadline passes before its attempt starts."""

    RUN = "run"
    DROP = "drop"
    DEAD = "dead"


class LateRetry(StrEnum):
    """What becomes of a retry that would come after the deadline that was first promised."""

    ALLOW = "allow"
    CLIP = "clip"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffPolicy:
    """How long to wait after a failed attempt.

    The wait after attempt n is `base` (constant), `base * n` (linear) or
    `base * 2 ** (n - 1)` (exponential), made longer by up to `jitter` of
    itself, and never more than `max_delay_seconds`.
    """

    type: BackoffType = BackoffType.EXPONENTIAL
    base_delay_seconds: float = 60.0
    max_delay_seconds: float = 3600.0
    jitter: float = 0.1

    def to_json(self) -> Json:
        """The policy as `jobs.backoff_policy` and the API spell it."""
        return {
            "type": self.type.value,
            "base_delay_seconds": self.base_delay_seconds,
            "max_delay_seconds": self.max_delay_seconds,
            "jitter": self.jitter,
        }


# Not frozen: its fields are set five times as fast, and a batch makes thousands.
@dataclass(slots=True, kw_only=True)
class NewJob:
    """A job as its producer describes it; None means: as the use case is configured.

    `run_at` None means now. `delay_tolerance_seconds` says how long after
    `run_at` a start still keeps the promise. `queue` is a configured queue name.
    `parent_deadline_at` is the deadline of the job on whose behalf this one is made: its own
    deadline is no later, unless `run_at` is. With `reject_if_infeasible` a job that is forecast
    to start late is refused. With a `job_id` of the caller's, enqueueing may be repeated: the job
    is made once. Take `new_job_id()`, or any UUID nobody else will choose.
    An attempt may take `timeout_seconds`, or what its type is registered with if that is less.
    """

    tenant_id: str
    use_case: str
    type: str
    payload: Mapping[str, Any]
    queue: str | None = None
    run_at: datetime | None = None
    delay_tolerance_seconds: float | None = None
    max_attempts: int = 3
    backoff_policy: BackoffPolicy | Mapping[str, Any] | None = None
    dedupe_key: str | None = None
    priority: int = 0
    parent_deadline_at: datetime | None = None
    reject_if_infeasible: bool = False
    job_id: UUID | None = None
    timeout_seconds: float | None = None


class JobFields(TypedDict, total=False):
    """The fields of a NewJob as keyword arguments."""

    tenant_id: Required[str]
    use_case: Required[str]
    type: Required[str]
    payload: Required[Mapping[str, Any]]
    queue: str | None
    run_at: datetime | None
    delay_tolerance_seconds: float | None
    max_attempts: int
    backoff_policy: BackoffPolicy | Mapping[str, Any] | None
    dedupe_key: str | None
    priority: int
    parent_deadline_at: datetime | None
    reject_if_infeasible: bool
    job_id: UUID | None
    timeout_seconds: float | None


class AcceptedJob(NamedTuple):
    """A job that passed every check, as the store writes it; what differs in a batch comes first.

    With `latest_deadline_at` the tolerance is cut so that the deadline is no later, 0 at least.
    """

    id: UUID
    payload_json: str
    dedupe_key: str | None
    tenant_id: str
    use_case: str
    type: str
    queue: str
    run_at: datetime | None
    delay_tolerance_seconds: float
    max_attempts: int
    backoff_json: str | None
    priority: int
    latest_deadline_at: datetime | None = None
    reject_if_infeasible: bool = False
    timeout_seconds: float | None = None
    has_chosen_id: bool = False

    @property
    def is_repeatable(self) -> bool:
        """Whether the same job enqueued again is known to be the same."""
        return self.has_chosen_id or self.dedupe_key is not None


class Enqueued(NamedTuple):
    """What became of an enqueue: the job's id, and whether it or a twin of it was there already.

    `predicted_start_at` is when the job will start by what waits and how fast that goes, and
    `feasible` whether that is before its deadline. With nothing measured, and for a twin, they
    are None and True: nothing speaks against it.
    """

    job_id: UUID
    deduplicated: bool = False
    predicted_start_at: datetime | None = None
    feasible: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of `jobs`, whole."""

    id: UUID
    tenant_id: str
    use_case: str
    type: str
    queue: str
    status: JobStatus
    payload: Json
    run_at: datetime
    delay_tolerance: timedelta
    deadline_at: datetime
    priority: int
    attempts: int
    max_attempts: int
    backoff_policy: Json | None
    lease_expires_at: datetime | None
    last_error: Json | None
    dedupe_key: str | None
    enqueue_failed: bool
    created_at: datetime
    updated_at: datetime
    lease_seq: int
    due: bool
    is_retry: bool
    probe: bool
    leased_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    first_run_at: datetime | None
    first_started_at: datetime | None
    cancel_requested_at: datetime | None
    result: Any
    worker: str | None
    trace_context: Json | None
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", JobStatus(self.status))

    @property
    def delay_tolerance_seconds(self) -> float:
        return self.delay_tolerance.total_seconds()


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs newest first; where the next page begins, None at the end; rows read, if in vain."""

    jobs: Sequence[Job]
    next_cursor: UUID | None
    looked_through: int = 0  # not 0: so many rows did not fill the page, there may be more


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a message carries: which job to start, under which lease.

    `lease_seq` None (a bare id, as other producers may send it) stands for
    whatever lease the job has when the message arrives.
    """

    job_id: UUID
    lease_seq: int | None


class Leased(NamedTuple):
    """A job the scheduler has leased and now sends on its way; the slack is that of this moment."""

    job_id: UUID
    lease_seq: int
    queue: str
    tenant_id: str
    type: str
    deadline_at: datetime
    priority: int
    slack_seconds: float = 0.0
    tolerance_seconds: float = 0.0
    trace_context: str | None = None

    @property
    def urgency(self) -> tuple[datetime, int, int]:
        """Sorts the most urgent first: deadline, then priority, then age."""
        return (self.deadline_at, -self.priority, self.job_id.int)


class StartedJob(NamedTuple):
    """A job a worker has just started: what an attempt needs to know, and no more."""

    payload: Json
    id: UUID
    lease_seq: int
    tenant_id: str
    use_case: str
    type: str
    queue: str
    attempts: int
    max_attempts: int
    backoff_policy: Json | None
    run_at: datetime
    deadline_at: datetime
    started_at: datetime
    lease_expires_at: datetime
    first_run_at: datetime | None = None
    probe: bool = False
    is_first_start: bool = True
    timeout_seconds: float | None = None
    trace_context: str | None = None
    unreadable: str = ""

    @property
    def promised_at(self) -> datetime:
        """The deadline as first promised, before any retry or snooze moved it."""
        if self.first_run_at is None:
            return self.deadline_at
        return self.deadline_at - self.run_at + self.first_run_at

    @property
    def lateness_seconds(self) -> float:
        """How long after its deadline the attempt started; negative means in time."""
        return (self.started_at - self.deadline_at).total_seconds()

    @property
    def tolerance_seconds(self) -> float:
        """The delay tolerance."""
        return (self.deadline_at - self.run_at).total_seconds()

    @property
    def waited_seconds(self) -> float:
        """From the moment it could run to the moment it started."""
        return (self.started_at - self.run_at).total_seconds()


EnqueueFromHandler = Callable[[NewJob], Awaitable[Enqueued]]


async def _no_enqueue(new: NewJob) -> Enqueued:
    raise RuntimeError("This context was made without a JobService, so it cannot enqueue.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What a handler knows about the attempt it runs.

    `attempt` counts from 1. `lease_seq` grows with every lease: a handler that
    writes elsewhere can store it there and refuse writes with a smaller one, so
    that a stalled attempt cannot overwrite its successor.
    """

    job_id: UUID
    tenant_id: str
    use_case: str
    type: str
    queue: str
    attempt: int
    max_attempts: int
    run_at: datetime
    deadline_at: datetime
    lease_seq: int
    log: Log
    enqueuer: EnqueueFromHandler = field(default=_no_enqueue, repr=False)

    def remaining(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return (self.deadline_at - datetime.now(UTC)).total_seconds()

    async def enqueue(
        self,
        type: str,
        payload: Mapping[str, Any],
        *,
        tenant_id: str | None = None,
        use_case: str | None = None,
        queue: str | None = None,
        run_at: datetime | None = None,
        delay_tolerance_seconds: float | None = None,
        max_attempts: int = 3,
        backoff_policy: BackoffPolicy | Mapping[str, Any] | None = None,
        dedupe_key: str | None = None,
        priority: int = 0,
        inherit_deadline: bool = True,
        reject_if_infeasible: bool = False,
        job_id: UUID | None = None,
        timeout_seconds: float | None = None,
    ) -> Enqueued:
        """Enqueue another job, for the same tenant and use case unless told otherwise.

        Its deadline is no later than this job's, because this job is not done before it: a
        tolerance of its own counts if it ends earlier. Once this deadline has passed, the other
        job has none left (tolerance 0). A `run_at` beyond this deadline says that the other job
        is not part of this one: then, and with `inherit_deadline=False`, only its own counts.
        """
        new = NewJob(
            tenant_id=tenant_id or self.tenant_id,
            use_case=use_case or self.use_case,
            type=type,
            payload=payload,
            queue=queue,
            run_at=run_at,
            delay_tolerance_seconds=delay_tolerance_seconds,
            max_attempts=max_attempts,
            backoff_policy=backoff_policy,
            dedupe_key=dedupe_key,
            priority=priority,
            parent_deadline_at=self.deadline_at if inherit_deadline else None,
            reject_if_infeasible=reject_if_infeasible,
            job_id=job_id,
            timeout_seconds=timeout_seconds,
        )
        return await self.enqueuer(new)


def canonical_name(use_case: str) -> str:
    """The one spelling of a use case's name: lower case, underscores for dashes."""
    return use_case.strip().lower().replace("-", "_")
