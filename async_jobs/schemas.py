"""The shapes that the API and its client speak: JSON in, JSON out.

Only shape is checked here: which fields there are and of which kind they are. A
boolean is no number, a text is no number, and a field that is not known is
refused, so that a misspelt one cannot be lost in silence. Which values a job may
have is decided in `core/acceptance.py`, once for everybody.

What is read back (`JobView` and the answers) tolerates new fields, so that an
older client works with a newer server.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from async_jobs.core.acceptance import MAX_ATTEMPTS, MAX_PRIORITY, NAME_PATTERN
from async_jobs.models import JobStatus, Json, NewJob

MOST_JOBS_PER_REQUEST = 1_000
_MOST_FIELDS = 64
_ISO_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d([.,]\d{1,6})?)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _read_time(value: object) -> object:
    """A datetime from ISO text; whether it has a zone is judged with the other rules."""
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, str) and _ISO_TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper())
        except ValueError:
            pass  # a month 13, a second 60
    raise PydanticCustomError("invalid_time", "must be a time as ISO 8601 text")


def _read_uuid(value: object) -> object:
    """An id in its one usual spelling: a job has one address, not five."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value)
    raise PydanticCustomError("invalid_uuid", "must be a UUID")


def _in_utc(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


RunAt = Annotated[datetime, BeforeValidator(_read_time)]
JobId = Annotated[UUID, BeforeValidator(_read_uuid)]
Time = Annotated[AwareDatetime, PlainSerializer(_in_utc, return_type=str, when_used="json")]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


# What the document tells callers; the rules themselves are in core/acceptance.py.
_A_NAME: dict[str, Any] = {"pattern": f"^{NAME_PATTERN}$", "maxLength": 128}


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, from_attributes=True)


class EnqueueRequest(_Request):
    """One job as a producer describes it."""

    tenant_id: str = Field(
        description="Whose job it is.", examples=["tenant1"], json_schema_extra=_A_NAME
    )
    use_case: str = Field(
        description="A configured use case.", examples=["notifications"], json_schema_extra=_A_NAME
    )
    type: str = Field(
        description="Picks the handler.", examples=["send_email"], json_schema_extra=_A_NAME
    )
    payload: dict[str, Any] = Field(description="What the handler gets.")
    queue: str | None = Field(default=None, description="The use case's queue, if given at all.")
    run_at: RunAt | None = Field(
        default=None, description="When to run, with a time zone; left out: now."
    )
    delay_tolerance_seconds: Seconds | None = Field(
        default=None, description="How long after run_at a start still keeps the promise."
    )
    max_attempts: int = Field(default=3, json_schema_extra={"minimum": 1, "maximum": MAX_ATTEMPTS})
    backoff_policy: dict[str, Any] | None = Field(
        default=None,
        description="type (constant, linear, exponential), base_delay_seconds, "
        "max_delay_seconds, jitter.",
    )
    dedupe_key: str | None = Field(
        default=None, description="A second unfinished job with this key is not made."
    )
    priority: int = Field(
        default=0,
        description="Higher goes first at the same deadline.",
        json_schema_extra={"minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
    )
    parent_deadline_at: RunAt | None = Field(
        default=None, description="Its deadline is no later than this, unless run_at is."
    )
    reject_if_infeasible: bool = Field(
        default=False, description="Refuse the job (409) if it is forecast to start late."
    )
    job_id: JobId | None = Field(
        default=None, description="The id it is to have; with one, the request may be repeated."
    )
    timeout_seconds: Seconds | None = Field(
        default=None,
        description="How long an attempt may take, if its type is not registered with less.",
    )

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        """One complaint instead of a hundred thousand."""
        if isinstance(given, dict) and len(given) > _MOST_FIELDS:
            raise PydanticCustomError("too_many_fields", "has too many fields")
        return given

    def to_new_job(self) -> NewJob:
        """The same job as the service takes it; nothing about its values has been checked yet."""
        return NewJob(**vars(self))


class EnqueueManyRequest(_Request):
    """Several jobs, stored all or none."""

    jobs: list[EnqueueRequest] = Field(max_length=MOST_JOBS_PER_REQUEST)


class EnqueueResponse(_Answer):
    """Which job it became, whether it was there already, and when it will start.

    Where nothing was measured `predicted_start_at` is null and `feasible` true.
    """

    job_id: UUID
    deduplicated: bool = False
    predicted_start_at: Time | None = None
    feasible: bool = True


class EnqueueManyResponse(_Answer):
    """One entry for each job of the request, in its order."""

    jobs: list[EnqueueResponse]


class _AnyJobView(_Answer):
    """What every view of a job has. Times are UTC."""

    id: UUID
    tenant_id: str
    use_case: str
    type: str
    status: JobStatus
    payload: Json | None
    queue: str
    run_at: Time
    delay_tolerance_seconds: float
    deadline_at: Time
    priority: int
    attempts: int
    max_attempts: int
    backoff_policy: Json | None
    lease_expires_at: Time | None
    last_error: Json | None
    dedupe_key: str | None
    enqueue_failed: bool
    created_at: Time
    updated_at: Time
    started_at: Time | None
    finished_at: Time | None
    first_run_at: Time | None = None
    cancel_requested_at: Time | None = None
    leased_at: Time | None = None
    lease_seq: int = 0
    worker: str | None = None
    result: Any = None
    timeout_seconds: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the job has succeeded, is dead or was cancelled."""
        return self.status.is_finished


class JobView(_AnyJobView):
    """One job, whole. Times are UTC."""

    payload: Json


class ListedJobView(_AnyJobView):
    """One job in a list: payload and result are null unless they were asked for."""

    payload: Json | None = None


class JobListView(_Answer):
    """Jobs newest first; `next_cursor` asks for the next page, null: this was the last."""

    jobs: list[ListedJobView]
    next_cursor: UUID | None = None
    looked_through: int = Field(
        0,
        description="Not 0: so many rows were read, and the page is not full. Go on from "
        "`next_cursor`, there may be more.",
    )


class CauseView(_Answer):
    """One thing that holds a job back."""

    code: str = Field(description="For programs, such as capacity_full.")
    text: str
    figures: dict[str, float | int | str | bool | None]


class ExplanationView(_Answer):
    """Where a job is and why; the first cause decides."""

    job_id: UUID
    state: str = Field(description="scheduled, waiting, leased, running or how it finished.")
    summary: str
    causes: list[CauseView]


class PromisesView(_Answer):
    """First starts in a time, and how many of them were late."""

    started: int
    late: int
    kept_share: float | None = Field(description="From 0 to 1; null if nothing started.")


class HistogramView(_Answer):
    """A label and a count for each bucket."""

    labels: list[str]
    buckets: list[int]
    total: int
    late: int
    mean_seconds: float | None


class DemandStepView(_Answer):
    """Waiting jobs with a deadline before `until_seconds` from now, and in no earlier step."""

    until_seconds: float
    jobs: int
    cut: bool = Field(description="Counting stopped there: at least so many.")


class TenantSloView(_Answer):
    """A tenant's slots, its share of them, and its promises."""

    tenant_id: str
    held: int
    share: float
    waits: bool
    last_day: PromisesView | None


class UseCaseSloView(_Answer):
    """How the promises of one use case are kept."""

    use_case: str
    tenant_id: str | None
    target: float
    last_hour: PromisesView
    last_day: PromisesView
    budget_left: float = Field(description="Of the last 30 days; below 0: overspent.")
    burn_rates: dict[str, float] = Field(description="By window: 5m, 1h, 6h, 3d.")
    alert: str = Field(description="none, ticket or page.")
    window: str = Field(description="That of the histograms.")
    histograms: dict[str, HistogramView] = Field(
        description="lease, start, end: slack as a part of the tolerance; lateness, run: seconds."
    )
    late_now: int
    late_now_cut: bool
    oldest_late_seconds: float
    oldest_due_seconds: float = Field(
        description="How long the most urgent waiting job has been due; 0: none waits."
    )
    in_flight: int
    capacity: int
    configured_capacity: int
    required_slots: int = Field(description="Slots that keep every promise to waiting jobs.")
    required_slots_cut: bool
    mean_run_seconds: float | None
    demand: list[DemandStepView]
    tenants: list[TenantSloView]
    fairness_held: float | None
    fairness_kept: float | None


class SloView(_Answer):
    """One entry for each use case."""

    use_cases: list[UseCaseSloView]


class UseCaseNeedView(_Answer):
    """Slots and workers that one use case needs."""

    use_case: str
    wanted_slots: int = Field(description="What its promises ask for.")
    slots: int = Field(description="What its capacity allows of them.")
    workers: int
    capacity: int
    in_flight: int
    at_least: bool = Field(description="Counting was cut off: even more may be needed.")


class ScalingView(_Answer):
    """Workers that keep every promise of the next seconds."""

    workers: int = Field(description="For all use cases together, which share them.")
    slots: int
    slots_per_worker: int
    within_seconds: float
    lead_seconds: float
    use_cases: list[UseCaseNeedView]


class ProblemDetail(_Answer):
    """One fault: where it is, a code for programs, a sentence for people."""

    loc: list[str | int]
    code: str
    message: str


class ProblemView(_Answer):
    """Why a request was refused. Never repeats what was sent, and is at most 2 KiB long."""

    error: str
    detail: list[ProblemDetail]
    job_id: UUID | None = Field(default=None, description="The job that stands in the way.")
    predicted_start_at: Time | None = Field(
        default=None, description="When a job that was refused as infeasible would have started."
    )
