"""Jobs in every state, and a clock that tests set.

Every job gets into its state by the store's own moves, so a factory can only
make what the system itself can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import Outcome
from async_jobs.models import (
    AcceptedJob,
    Enqueued,
    Job,
    JobStatus,
    Leased,
    StartedJob,
    Ticket,
    new_job_id,
)
from async_jobs.store.jobs import JobStore

MIDNIGHT = datetime(2030, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 30.0

SUCCEEDED = Outcome(move=Move.SUCCEED, status=JobStatus.SUCCEEDED, result_json='{"ok": true}')
RETRIED = Outcome(
    move=Move.RETRY, status=JobStatus.PENDING, delay_seconds=40.0, error_json='{"type": "Boom"}'
)
RETRIED_AT_ONCE = Outcome(
    move=Move.RETRY, status=JobStatus.PENDING, delay_seconds=0.0, error_json='{"type": "Boom"}'
)
SNOOZED = Outcome(
    move=Move.SNOOZE, status=JobStatus.PENDING, delay_seconds=40.0, gives_attempt_back=True
)
BURIED = Outcome(move=Move.BURY, status=JobStatus.DEAD, error_json='{"type": "Boom"}')
CANCELLED = Outcome(
    move=Move.CANCEL, status=JobStatus.CANCELLED, error_json='{"type": "Cancelled"}'
)
RELEASED = Outcome(move=Move.RELEASE, status=JobStatus.PENDING, gives_attempt_back=True)


@dataclass(slots=True)
class SettableClock:
    """A clock that stands still until a test moves it."""

    at: datetime = MIDNIGHT

    def now(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def new_job(**changes: Any) -> AcceptedJob:
    """A job as the service hands it to the store."""
    fields: dict[str, Any] = {
        "id": new_job_id(),
        "tenant_id": "acme",
        "use_case": "mail",
        "type": "send",
        "queue": "mail-queue",
        "payload_json": '{"to": "ada"}',
        "run_at": None,
        "delay_tolerance_seconds": 60.0,
        "max_attempts": 3,
        "backoff_json": None,
        "dedupe_key": None,
        "priority": 0,
    }
    return AcceptedJob(**{**fields, **changes})


def ticket(job: Leased | StartedJob) -> Ticket:
    """The ticket a message about this job carries."""
    return Ticket(job.job_id if isinstance(job, Leased) else job.id, job.lease_seq)


@dataclass
class JobFactory:
    """Makes jobs in a wanted state; keyword arguments change the fields of `new_job`."""

    store: JobStore
    lease_seconds: float = LEASE_SECONDS
    worker: str = "worker-1"
    made: list[UUID] = field(default_factory=list)

    async def waiting(self, **changes: Any) -> AcceptedJob:
        job = new_job(**changes)
        await self.store.enqueue([job])
        self.made.append(job.id)
        return job

    async def leased(self, **changes: Any) -> Leased:
        job = await self.waiting(**changes)
        return await self.lease_again(job.id, job.use_case)

    async def lease_again(self, job_id: UUID, use_case: str = "mail") -> Leased:
        async with self.store.take_turn(use_case) as turn:
            assert turn is not None
            return (await turn.lease_chosen([job_id], lease_seconds=self.lease_seconds))[0]

    async def leased_probe(self) -> Leased:
        job = await self.waiting()
        async with self.store.take_turn(job.use_case) as turn:
            assert turn is not None
            leased = await turn.lease_chosen(
                [job.id], lease_seconds=self.lease_seconds, probes=[job.id]
            )
        return leased[0]

    async def running(self, **changes: Any) -> StartedJob:
        return await self.start(await self.leased(**changes))

    async def start(self, leased: Leased) -> StartedJob:
        started = await self.store.start(
            [ticket(leased)], worker=self.worker, lease_seconds=self.lease_seconds
        )
        return started[0]

    async def finished(self, outcome: Outcome = SUCCEEDED, **changes: Any) -> StartedJob:
        job = await self.running(**changes)
        assert await self.store.finish([(job, outcome)]) == {job.id}
        return job

    async def row(self, job: AcceptedJob | Enqueued | Leased | StartedJob | UUID) -> Job:
        """The job's row as it is now."""
        if isinstance(job, Enqueued | Leased):
            job_id = job.job_id
        else:
            job_id = job if isinstance(job, UUID) else job.id
        found = await self.store.get(job_id)
        assert found is not None
        return found

    async def lease(self, slots: int = 100, use_case: str = "mail") -> Sequence[Leased]:
        """What a scheduler's turn leases."""
        async with self.store.take_turn(use_case) as turn:
            assert turn is not None
            return await turn.lease_due(slots, lease_seconds=self.lease_seconds)


async def granted(store: JobStore, use_case: str = "mail", *, capacity: int) -> None:
    """Leave for workers to claim jobs of *use_case*, for an hour."""
    await store.claims.ask([use_case])
    async with store.take_turn(use_case) as turn:
        assert turn is not None
        assert turn.asked
        await turn.grant(capacity, seconds=3_600.0)
