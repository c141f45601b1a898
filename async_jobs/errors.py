"""Every exception of the library, and the signals a handler may raise.

    AsyncJobsError
    ├── ConfigError             .problems: one text for each faulty variable
    ├── SchemaOutdated          .found .needed
    ├── StoreUnavailable        the database did not answer in time
    ├── JobRejected             the job was not accepted; nothing was written
    │   ├── InvalidJob          .field .code .reason .index (in a batch)
    │   ├── UnknownUseCase      .field .code .reason (an InvalidJob)
    │   ├── DedupeConflict      .job_id
    │   ├── JobIdTaken          .job_id
    │   ├── QuotaExceeded       .tenant_id .limit .retry_after_seconds
    │   ├── DeadlineInfeasible  .predicted_start_at .deadline_at .index (in a batch)
    │   └── Overloaded          .tenant_id .use_case .retry_after_seconds
    ├── JobNotFound             .job_id
    ├── MoveRefused             .job_id .move .status
    ├── RegistryError
    │   ├── DuplicateHandler    .type
    │   ├── UnknownType         .type .closest
    │   └── InvalidPayload      .type .problems
    ├── TransportError          .queue .reason .retryable
    ├── TraceError              .line .column (of a CSV for `async-jobs simulate`)
    └── ApiError                .status .code .detail (raised by the HTTP client)

    HandlerSignal               raised by handlers; not errors
    ├── Retry(after_seconds)    run again after this wait; uses the attempt
    ├── Snooze(seconds)         call me later; the attempt is given back
    ├── Backpressure(seconds)   what the handler calls is overloaded; the attempt is given back
    ├── Cancel(reason)          end the job as cancelled
    └── Bury(reason)            give the job up now

An error text says what was found, what was needed and what to do. It never
holds a secret or the value of a refused input. The default message of a class
is the first line of its docstring; facts are attributes, not only text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID


class AsyncJobsError(Exception):
    """Something in async_jobs failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class ConfigError(AsyncJobsError):
    """The configuration cannot be used."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"The configuration cannot be used:\n{listed}")


class SchemaOutdated(AsyncJobsError):
    """The database schema is older than this version of the library."""

    def __init__(self, found: int, needed: int) -> None:
        self.found = found
        self.needed = needed
        super().__init__(
            f"The database has schema version {found}, this library needs {needed}. "
            "Run `async-jobs migrate`, or start the scheduler or worker with --init-db."
        )


class StoreUnavailable(AsyncJobsError):
    """The database did not answer in time."""


class JobRejected(AsyncJobsError):
    """The job was not accepted; nothing was written."""


class InvalidJob(JobRejected, ValueError):
    """A field of the job cannot be accepted."""

    index: int | None = None
    """Which job of a batch it was, counted from 0; None for a single job."""

    def __init__(self, field: str, code: str, reason: str) -> None:
        self.field = field
        self.code = code
        self.reason = reason
        super().__init__(f"{field}: {reason}")

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.index is None else f"jobs[{self.index}].{text}"


class UnknownUseCase(InvalidJob):
    """The use case is not configured."""

    def __init__(self) -> None:
        super().__init__(
            "use_case",
            "unknown_use_case",
            "not a configured use case; configure one with ASYNC_JOBS_<USE_CASE>_MAX_CONCURRENT "
            "or ASYNC_JOBS_SQS_QUEUE_<USE_CASE> on this process and on the scheduler",
        )


class DedupeConflict(JobRejected):
    """An unfinished job with this dedupe_key asks for something else."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        super().__init__(
            f"Job {job_id} holds this dedupe_key with another use_case, type or payload. "
            "Use another key, or wait until that job has finished."
        )


class JobIdTaken(JobRejected):
    """Another job has the id that was chosen for this one."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        super().__init__(
            f"Another job has the id {job_id}, or this one was enqueued with another tenant, "
            "use_case, type, payload or dedupe_key. Take a new random id for a new job."
        )


class QuotaExceeded(JobRejected):
    """The tenant has as many unfinished jobs as its quota allows."""

    def __init__(self, tenant_id: str, limit: int, *, retry_after_seconds: float = 5.0) -> None:
        self.tenant_id = tenant_id
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds
        super().__init__(
            f"The tenant may have {limit} unfinished jobs (max_pending_jobs in "
            "ASYNC_JOBS_PER_TENANT_QUOTAS) and has them. Try again when some have finished."
        )


class DeadlineInfeasible(JobRejected):
    """The job is forecast to start after its deadline, and was not to be accepted then."""

    index: int | None = None
    """Which job of a batch it was, counted from 0; None for a single job."""

    def __init__(self, predicted_start_at: datetime, deadline_at: datetime) -> None:
        self.predicted_start_at = predicted_start_at
        self.deadline_at = deadline_at
        late_seconds = (predicted_start_at - deadline_at).total_seconds()
        super().__init__(
            f"The job would start at about {predicted_start_at:%Y-%m-%dT%H:%M:%SZ}, "
            f"{late_seconds:.1f} s after its deadline, because of what waits before it. Allow a "
            "larger delay_tolerance_seconds, try again later, or leave reject_if_infeasible out "
            "to have it stored all the same."
        )


class Overloaded(JobRejected):
    """The job would be late, because the tenant has more waiting than its share can do in time."""

    def __init__(self, tenant_id: str, use_case: str, *, retry_after_seconds: float) -> None:
        self.tenant_id = tenant_id
        self.use_case = use_case
        self.retry_after_seconds = retry_after_seconds
        super().__init__(
            "The use case is overloaded and the tenant has more jobs waiting than its share of the "
            "capacity can start in time. Try again later, or with a larger delay tolerance."
        )


class JobNotFound(AsyncJobsError):
    """There is no such job."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        super().__init__(f"There is no job {job_id}.")


class MoveRefused(AsyncJobsError):
    """The job is not in a state that allows this move."""

    def __init__(self, job_id: UUID, move: str, status: str, remedy: str = "") -> None:
        self.job_id = job_id
        self.move = move
        self.status = status
        super().__init__(f"Cannot {move} job {job_id}: it is {status}. {remedy}".rstrip())


class RegistryError(AsyncJobsError):
    """A handler cannot be registered or found."""


class DuplicateHandler(RegistryError):
    """Two handlers were registered for one type."""

    def __init__(self, type: str) -> None:
        self.type = type
        super().__init__(
            f"There is a handler for type {type!r} already. One type has one handler: "
            "give the second one another type."
        )


class UnknownType(RegistryError):
    """No handler is registered for this type."""

    def __init__(self, type: str, closest: str | None = None) -> None:
        self.type = type
        self.closest = closest
        hint = f" Did you mean {closest!r}?" if closest else ""
        super().__init__(
            f"No handler is registered for type {type!r}.{hint} Import the module that registers "
            "it: set ASYNC_JOBS_HANDLERS_MODULE."
        )


class InvalidPayload(RegistryError, ValueError):
    """The payload does not fit what the handler declares."""

    def __init__(self, type: str, problems: Sequence[str]) -> None:
        self.type = type
        self.problems = tuple(problems)
        super().__init__(
            f"The payload does not fit the handler of type {type!r}: {'; '.join(self.problems)}"
        )


class TransportError(AsyncJobsError):
    """The queue did not take or give messages."""

    def __init__(self, queue: str, reason: str, *, retryable: bool = True) -> None:
        self.queue = queue
        self.reason = reason
        self.retryable = retryable
        super().__init__(f"Queue {queue}: {reason}")


class TraceError(AsyncJobsError):
    """A line of a trace cannot be used."""

    def __init__(self, line: int, column: str, reason: str) -> None:
        self.line = line
        self.column = column
        super().__init__(f"Line {line}, column {column}: {reason}.")


class ApiError(AsyncJobsError):
    """The jobs API refused a request or did not answer."""

    def __init__(
        self,
        status: int | None,
        code: str,
        detail: str,
        *,
        retry_after_seconds: float | None = None,
        predicted_start_at: datetime | None = None,
    ) -> None:
        self.predicted_start_at = predicted_start_at
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{code} ({status or 'no answer'}): {detail}")


class HandlerSignal(Exception):
    """What a handler may raise to choose how its attempt ends."""


class Retry(HandlerSignal):
    """Run the job again; the attempt is used. Without a wait the job's backoff policy decides."""

    def __init__(self, after_seconds: float | None = None, reason: str = "") -> None:
        self.after_seconds = after_seconds
        self.reason = reason
        super().__init__(reason or "the handler asked for a retry")


class Snooze(HandlerSignal):
    """Call the handler again later; the attempt is given back."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"snoozed for {seconds} s")


class Backpressure(HandlerSignal):
    """Something that the handler calls is overloaded: wait, and send fewer jobs of this use case.

    The job waits `retry_after_seconds` and the attempt is given back. The use case's capacity
    falls by three tenths, and comes back slot by slot once nothing raises this any more.
    """

    def __init__(self, retry_after_seconds: float) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"backpressure: asked to wait {retry_after_seconds} s")


class Cancel(HandlerSignal):
    """End the job as cancelled."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "cancelled by its handler")


class Bury(HandlerSignal):
    """Give the job up now, whatever attempts are left."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "buried by its handler")
