"""JobService: what producers and operators may do with jobs.

It checks a job against the configuration, fills in what the use case defaults,
and lets the store make the move. The API router, handlers that enqueue and
applications use this one class; it holds no state but the coalescing of hints.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Unpack, overload
from uuid import UUID

from async_jobs.admission import Admission, Demand
from async_jobs.config import AsyncJobsConfig, UseCaseConfig, canonical_name
from async_jobs.core.acceptance import accept, accept_alike, is_alike
from async_jobs.core.slo_report import Minute
from async_jobs.errors import (
    DeadlineInfeasible,
    InvalidJob,
    JobNotFound,
    MoveRefused,
    Overloaded,
    QuotaExceeded,
)
from async_jobs.forecaster import UNKNOWN, DemandDesk, Forecast, Forecaster, deadline_of
from async_jobs.ids import new_job_id, new_job_ids
from async_jobs.matching import Matching, MatchingDesk
from async_jobs.models import AcceptedJob, Enqueued, Job, JobFields, JobStatus, NewJob, Page
from async_jobs.steering import Steering, SteeringDesk
from async_jobs.store.door import Connection
from async_jobs.store.hints import LOOK_AT_EVERYTHING, Coalescer
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import JobCancelled, JobEnqueued, JobRequeued, OperatorActed

MOST_PER_PAGE = 1_000
MOST_PER_BATCH = 10_000
HINT_WITHIN_SECONDS = 60.0


class ServiceDesk(DemandDesk, SteeringDesk, Protocol):
    """The store's moves that the service makes."""

    @property
    def demand(self) -> Demand: ...

    @property
    def matching(self) -> MatchingDesk: ...

    async def enqueue(
        self,
        jobs: Sequence[AcceptedJob],
        *,
        quotas: dict[str, int] | None = None,
        use_cases: Sequence[str] = (),
        hints: Sequence[str] = (),
        connection: Connection | None = None,
    ) -> list[Enqueued]: ...

    async def find_stored(
        self, jobs: Sequence[AcceptedJob], *, connection: Connection | None = None
    ) -> list[Enqueued] | None: ...

    async def get(self, job_id: UUID, *, tenant_id: str | None = None) -> Job | None: ...

    async def find(
        self,
        *,
        tenant_id: str | None = None,
        use_case: str | None = None,
        status: JobStatus | None = None,
        before: UUID | None = None,
        limit: int = 100,
        payloads: bool = True,
    ) -> Page: ...

    async def cancel(
        self, job_id: UUID, *, tenant_id: str | None = None, actor: str | None = None
    ) -> Job | None: ...

    async def requeue(
        self,
        job_id: UUID,
        *,
        more_attempts: int,
        tenant_id: str | None = None,
        actor: str | None = None,
    ) -> Job | None: ...


_coalescer = Coalescer()
"""One for the process, because a router may make a service for every request."""


class JobService(Steering):
    """Accept jobs, look them up, cancel and requeue them."""

    def __init__(
        self, config: AsyncJobsConfig, store: ServiceDesk, *, bus: Bus | None = None
    ) -> None:
        super().__init__(config, store)
        self._store = store
        self._forecaster = Forecaster(store)
        self._bus = bus or Bus()

    @overload
    async def enqueue(
        self, new: NewJob, /, *, connection: Connection | None = None
    ) -> Enqueued: ...

    @overload
    async def enqueue(
        self, /, *, connection: Connection | None = None, **fields: Unpack[JobFields]
    ) -> Enqueued: ...

    async def enqueue(
        self,
        new: NewJob | None = None,
        /,
        *,
        connection: Connection | None = None,
        **fields: Any,
    ) -> Enqueued:
        """Store one job: a NewJob, or its fields as keyword arguments.

        With *connection*, a psycopg AsyncConnection of the caller's, the job commits or rolls
        back with the caller's transaction. Once this returns (without one), the job is stored
        and will run at least once unless it is cancelled.

        The answer says when the job is predicted to start and whether that is in time. With
        `reject_if_infeasible` a job that would be late is refused instead.

        Raises InvalidJob, UnknownUseCase, DedupeConflict, JobIdTaken, QuotaExceeded, Overloaded,
        DeadlineInfeasible, StoreUnavailable. After the last one the job may have been stored; with
        a job_id or a dedupe_key it is safe to repeat, and the answer is the same.
        """
        now = datetime.now(UTC)
        job = self._accept(NewJob(**fields) if new is None else new, new_job_id(), now)
        return (await self._store_all([job], now, connection))[0]

    async def enqueue_many(
        self, jobs: Sequence[NewJob], *, connection: Connection | None = None
    ) -> Sequence[Enqueued]:
        """Store all of *jobs* (at most 10,000) or none, in their order.

        Raises as `enqueue`; the `index` of an InvalidJob or DeadlineInfeasible says which job it
        was.
        """
        if len(jobs) > MOST_PER_BATCH:
            raise InvalidJob("jobs", "too_many", f"must be at most {MOST_PER_BATCH} jobs")
        if not jobs:
            return []
        now = datetime.now(UTC)
        return await self._store_all(self._accept_all(jobs, now), now, connection)

    async def _store_all(
        self, accepted: Sequence[AcceptedJob], now: datetime, connection: Connection | None
    ) -> Sequence[Enqueued]:
        config = await self.effective_config()
        try:
            await Admission(config, self._store.demand, self._bus).check(accepted, now, connection)
            forecasts = await self._forecasts(accepted, now, config)
            stored = await self._store.enqueue(
                accepted,
                quotas=_quotas(accepted, config),
                use_cases=list(self._config.use_cases),
                hints=_coalescer.let_through(_topics(accepted, now)),
                connection=connection,
            )
        except (Overloaded, DeadlineInfeasible, QuotaExceeded):
            # A repeated request needs no room: its job is stored.
            if found := await self._store.find_stored(accepted, connection=connection):
                return found
            raise
        if self._bus.is_heard:
            for job, enqueued in zip(accepted, stored, strict=True):
                self._bus.emit(_event(job, enqueued))
        new = [job for job, each in zip(accepted, stored, strict=True) if not each.deduplicated]
        self._forecaster.count(new, now)
        return [_foretold(*each) for each in zip(stored, forecasts, strict=True)]

    async def _forecasts(
        self, jobs: Sequence[AcceptedJob], now: datetime, config: AsyncJobsConfig
    ) -> Sequence[Forecast]:
        """One for each job; raises DeadlineInfeasible for the first that is to be refused."""
        forecasts: list[Forecast] = [UNKNOWN] * len(jobs)
        for name in dict.fromkeys([job.use_case for job in jobs]):
            indexes = [index for index, job in enumerate(jobs) if job.use_case == name]
            capacity = config.use_cases[name].max_concurrent
            made = await self._forecaster.forecast(name, capacity, [jobs[i] for i in indexes], now)
            for index, found in zip(indexes, made, strict=True):
                forecasts[index] = found
        for index, (job, found) in enumerate(zip(jobs, forecasts, strict=True)):
            if job.reject_if_infeasible and found.predicted_start_at and not found.feasible:
                error = DeadlineInfeasible(found.predicted_start_at, deadline_of(job, now))
                error.index = index if len(jobs) > 1 else None
                raise error
        return forecasts

    async def get(self, job_id: UUID, *, tenant_id: str | None = None) -> Job:
        """One job, whole; raises JobNotFound, also for a job of another tenant than *tenant_id*."""
        job = await self._store.get(job_id, tenant_id=tenant_id)
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def list(
        self,
        *,
        tenant_id: str | None = None,
        use_case: str | None = None,
        status: JobStatus | str | None = None,
        limit: int = 100,
        cursor: UUID | None = None,
        payloads: bool = True,
    ) -> Page:
        """Jobs newest first, 1 to 1,000 of them; `cursor` is the page before's `next_cursor`.

        A page looks through 20,000 rows at most: if few match it may hold fewer jobs than *limit*,
        even none, and still have a `next_cursor`; `looked_through` says so. Without *payloads*
        their payload and result are not read, and None.
        """
        if not 1 <= limit <= MOST_PER_PAGE:
            raise InvalidJob("limit", "out_of_range", f"must be from 1 to {MOST_PER_PAGE}")
        return await self._store.find(
            tenant_id=tenant_id,
            use_case=None if use_case is None else canonical_name(use_case),
            status=None if status is None else JobStatus(status),
            before=cursor,
            limit=limit,
            payloads=payloads,
        )

    async def slo_minutes(self, minutes: int = 60) -> Sequence[Minute]:
        """First starts and lateness of all use cases minute by minute, oldest first; one statement.

        Minutes without a first start are left out. Raises StoreUnavailable.
        """
        return await self._store.slo.sum_minutes(list(self._config.use_cases), minutes)

    @property
    def matching(self) -> Matching:
        """Pages, counts and moves of everything that matches a filter."""
        return Matching(self._store.matching, self._store.hint, self._bus)

    async def cancel(
        self, job_id: UUID, *, tenant_id: str | None = None, actor: str | None = None
    ) -> Job:
        """Cancel a pending job at once; ask a running one to end at its next heartbeat.

        It may be repeated: a job that is cancelled already is the answer as it is, and only the
        first cancel is told and audited. With *tenant_id* no other tenant's job is found. *actor*
        is who asks, for the log. Raises JobNotFound, and MoveRefused for a job that has succeeded
        or is dead.
        """
        job = await self._store.cancel(job_id, tenant_id=tenant_id, actor=actor)
        if job is None:
            found = await self.get(job_id, tenant_id=tenant_id)
            if found.status is JobStatus.CANCELLED:
                return found
            raise MoveRefused(job_id, "cancel", found.status.value)
        if job.status is JobStatus.CANCELLED:
            self._bus.emit(JobCancelled(**_facts(job), ran_seconds=0.0))
        if job.cancel_requested_at == job.updated_at:
            self._audit(job, "cancel", actor)
        return job

    async def requeue(
        self,
        job_id: UUID,
        *,
        more_attempts: int = 3,
        tenant_id: str | None = None,
        actor: str | None = None,
    ) -> Job:
        """Put a finished job back, due now, with *more_attempts* beyond those it has used.

        *tenant_id* and *actor* as for `cancel`. Raises JobNotFound, and MoveRefused for a job that
        is not finished, or whose dedupe_key an unfinished job holds.
        """
        job = await self._store.requeue(
            job_id, more_attempts=more_attempts, tenant_id=tenant_id, actor=actor
        )
        if job is None:
            found = await self.get(job_id, tenant_id=tenant_id)
            raise MoveRefused(job_id, "requeue", found.status.value)
        await self._store.hint([job.use_case])
        self._bus.emit(JobRequeued(**_facts(job)))
        self._audit(job, "requeue", actor)
        return job

    def _audit(self, job: Job, move: str, actor: str | None) -> None:
        if actor is not None:
            self._bus.emit(OperatorActed(**_facts(job), move=move, actor=actor))

    def _accept_all(self, jobs: Sequence[NewJob], now: datetime) -> Sequence[AcceptedJob]:
        """All of *jobs*; what is as in the job before is not looked at again."""
        accepted: list[AcceptedJob] = []
        ids = new_job_ids(len(jobs))
        while (at := len(accepted)) < len(jobs):
            try:
                accepted.append(self._accept(jobs[at], ids[at], now))
                if alike := _alike(jobs, at):
                    accepted += accept_alike(
                        alike,
                        accepted[at],
                        ids=ids[at + 1 : at + 1 + len(alike)],
                        max_payload_bytes=self._config.max_payload_bytes,
                    )
            except InvalidJob as error:
                error.index = len(accepted) + (error.index or 0)
                raise
        return accepted

    def _accept(self, new: NewJob, job_id: UUID, now: datetime) -> AcceptedJob:
        use_case = self._use_case(new.use_case)
        job = accept(
            new,
            job_id=job_id,
            queue=self._queue(new.queue, use_case),
            default_tolerance_seconds=use_case.default_delay_tolerance_seconds,
            now=now,
            max_payload_bytes=self._config.max_payload_bytes,
        )
        return job if job.use_case == use_case.name else job._replace(use_case=use_case.name)

    def _queue(self, asked: Any, use_case: UseCaseConfig) -> str:
        """The queue by the name the worker knows; a caller can name one, never bring one."""
        if asked is None or asked in (use_case.queue, use_case.name, use_case.sqs_queue_url):
            return use_case.queue
        if isinstance(asked, str) and asked.replace("-", "_") == use_case.name:
            return use_case.queue
        raise InvalidJob(
            "queue",
            "unknown_queue",
            "is not the queue of this use case; leave it out, or give the use case's name or the "
            "last part of its ASYNC_JOBS_SQS_QUEUE_<USE_CASE> URL",
        )


def _alike(jobs: Sequence[NewJob], at: int) -> Sequence[NewJob]:
    """Those that follow the one *at* and are alike to it."""
    end = at + 1
    while end < len(jobs) and is_alike(jobs[end], jobs[at]):
        end += 1
    return jobs[at + 1 : end]


def _quotas(jobs: Sequence[AcceptedJob], config: AsyncJobsConfig) -> dict[str, int]:
    tenants = {job.tenant_id for job in jobs}
    most = {tenant_id: config.quota_for(tenant_id).max_pending_jobs for tenant_id in tenants}
    return {tenant_id: limit for tenant_id, limit in most.items() if limit is not None}


def _topics(jobs: Sequence[AcceptedJob], now: datetime) -> set[str]:
    """Whom to wake: a use case for what is due, housekeeping for what soon will be."""
    soon = now + timedelta(seconds=HINT_WITHIN_SECONDS)
    due = {job.use_case for job in jobs if job.run_at is None or job.run_at <= now}
    if any(job.run_at is not None and now < job.run_at <= soon for job in jobs):
        due.add(LOOK_AT_EVERYTHING)
    return due


def _foretold(enqueued: Enqueued, forecast: Forecast) -> Enqueued:
    if forecast is UNKNOWN or enqueued.deduplicated:
        return enqueued
    return Enqueued(enqueued.job_id, False, forecast.predicted_start_at, forecast.feasible)


def _event(job: AcceptedJob, enqueued: Enqueued) -> JobEnqueued:
    return JobEnqueued(
        job_id=enqueued.job_id,
        tenant_id=job.tenant_id,
        use_case=job.use_case,
        type=job.type,
        queue=job.queue,
        deduplicated=enqueued.deduplicated,
    )


def _facts(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "tenant_id": job.tenant_id,
        "use_case": job.use_case,
        "type": job.type,
        "queue": job.queue,
        "attempt": job.attempts,
    }
