"""The rest of a walk: leases that are renewed, jobs that are ended late or chosen one by one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import rule

from async_jobs.models import JobStatus, StartedJob, Ticket
from async_jobs.store.queries import query

from .walk import CAPACITY, LEASE_SECONDS, JobsMachine


class WholeMachine(JobsMachine):
    """All moves."""

    @rule(ticket=JobsMachine.tickets)
    def the_sender_of_a_message_lives(self, ticket: Ticket) -> None:
        renewed = self.run(
            self.store.renew([ticket], lease_seconds=LEASE_SECONDS, most_seconds=900)
        )
        job = self.model.get(ticket.job_id)
        valid = job is not None and self._leased_under(job, ticket.lease_seq)
        assert renewed == ({ticket.job_id} if valid else set())
        if valid and job is not None:
            job.expires_at = self.now + timedelta(seconds=LEASE_SECONDS)

    @rule(attempt=JobsMachine.attempts)
    def a_worker_beats(self, attempt: StartedJob) -> None:
        told = self.run(self._beat(attempt))
        job = self.model.get(attempt.id)
        holds = job is not None and job.status == "running" and job.lease_seq == attempt.lease_seq
        assert told == ([(attempt.id, job.asked)] if holds and job is not None else [])
        if holds and job is not None:
            job.expires_at = self.now + timedelta(seconds=LEASE_SECONDS)

    async def _beat(self, attempt: StartedJob) -> list[Any]:
        async with self.pool.connection() as conn:
            params = {"ids": [attempt.id], "lease_seqs": [attempt.lease_seq], "now": self.now}
            cursor = await conn.execute(
                query("extend_attempts"), {**params, "lease_seconds": LEASE_SECONDS}
            )
            return await cursor.fetchall()

    @rule(status=st.sampled_from([JobStatus.DEAD, JobStatus.CANCELLED]))
    def late_jobs_are_ended(self, status: JobStatus) -> None:
        ended = self.run(self._end_late(status))
        late = [job for job in self.model.values() if job.due and self.now > job.deadline_at]
        assert len(ended) == len(late)
        for job in late:
            job.end(status.value)

    async def _end_late(self, status: JobStatus) -> Any:
        async with self.store.take_turn("mail") as turn:
            assert turn is not None
            return await turn.end_late(status, most=100)

    @rule(job_id=JobsMachine.ids)
    def one_job_is_chosen(self, job_id: UUID) -> None:
        leased = self.run(self._choose(job_id))
        job = self.model.get(job_id)
        waits = job is not None and job.due and len(self.held()) < CAPACITY
        assert [one.job_id for one in leased] == ([job_id] if waits else [])
        if waits and job is not None:
            self._given_a_lease(job)

    async def _choose(self, job_id: UUID) -> Any:
        async with self.store.take_turn("mail") as turn:
            assert turn is not None
            room = (await turn.count_in_flight()).total < CAPACITY
            return await turn.lease_chosen([job_id], lease_seconds=LEASE_SECONDS) if room else []
