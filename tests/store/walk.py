"""A random walk of the real statements beside a small model of what they should do.

The machine plays a scheduler, several workers (one of which may vanish with its
job), producers and an operator, under a clock of its own. The model (`walk_model.py`)
keeps one small record for each job; after every step the table must say the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)
from psycopg_pool import AsyncConnectionPool

from async_jobs.core.outcome import Outcome
from async_jobs.errors import DedupeConflict, MoveRefused, QuotaExceeded
from async_jobs.models import AcceptedJob, StartedJob, Ticket
from async_jobs.store.jobs import JobStore

from .factories import (
    BURIED,
    CANCELLED,
    RELEASED,
    RETRIED,
    RETRIED_AT_ONCE,
    SNOOZED,
    SUCCEEDED,
    SettableClock,
    new_job,
)
from .walk_model import Model

CAPACITY = 3
QUOTA = 5
LEASE_SECONDS = 30.0
TOLERANCE = timedelta(seconds=60)
OUTCOMES = [SUCCEEDED, RETRIED, RETRIED_AT_ONCE, SNOOZED, BURIED, CANCELLED, RELEASED]


class JobsMachine(RuleBasedStateMachine):
    """One walk; `database`, `runner` and `pool` are set by the test."""

    runner: asyncio.Runner
    pool: AsyncConnectionPool[Any]

    tickets = Bundle("tickets")
    attempts = Bundle("attempts")
    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.clock = SettableClock()
        self.store = JobStore(self.pool, clock=self.clock)
        self.model: dict[UUID, Model] = {}
        self.made = count(1)
        self.run(self._empty())

    async def _empty(self) -> None:
        async with self.pool.connection() as conn:
            await conn.execute("DELETE FROM jobs")

    def new_job(self, **changes: Any) -> AcceptedJob:
        """A job under an id that the same walk gives it again: ids decide between equals."""
        return new_job(id=UUID(int=next(self.made)), **changes)

    def run(self, awaitable: Any) -> Any:
        return self.runner.run(awaitable)

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def held(self) -> list[Model]:
        return [job for job in self.model.values() if job.expires_at is not None]

    def twin(self, key: str | None) -> UUID | None:
        return next(
            (
                job_id
                for job_id, job in self.model.items()
                if key is not None and job.dedupe_key == key and not job.finished
            ),
            None,
        )

    @rule(
        target=ids,
        delay=st.sampled_from([None, -5, 20]),
        max_attempts=st.integers(1, 2),
        key=st.sampled_from([None, None, "a", "b"]),
        kind=st.sampled_from(["send", "send", "resend"]),
    )
    def enqueue(self, delay: float | None, max_attempts: int, key: str | None, kind: str) -> Any:
        run_at = None if delay is None else self.now + timedelta(seconds=delay)
        job = self.new_job(
            run_at=run_at,
            max_attempts=max_attempts,
            dedupe_key=key,
            payload_json=f'{{"key": "{key}"}}' if key != "b" else f'{{"key": "{kind}"}}',
        )
        twin = self.twin(key)
        unfinished = sum(not known.finished for known in self.model.values())
        try:
            (stored,) = self.run(
                self.store.enqueue([job], quotas={"acme": QUOTA}, use_cases=["mail"])
            )
        except QuotaExceeded:
            assert unfinished >= QUOTA
            assert twin is None
            return multiple()
        except DedupeConflict as conflict:
            return self._refused(conflict, twin)
        assert stored.job_id == (twin or job.id)
        if twin is None:
            assert unfinished < QUOTA
            self.model[job.id] = Model(
                run_at or self.now, max_attempts, key, due=run_at is None or run_at <= self.now
            )
        return stored.job_id

    @rule(target=ids, delays=st.permutations([-1, -2, -3, -4]))
    def a_backlog_comes(self, delays: list[float]) -> Any:
        """As many jobs as may, the most urgent anywhere among them."""
        room = QUOTA - sum(not known.finished for known in self.model.values())
        run_ats = [self.now + timedelta(seconds=delay) for delay in delays[: max(0, room)]]
        jobs = [self.new_job(run_at=run_at, max_attempts=2) for run_at in run_ats]
        self.run(self.store.enqueue(jobs, quotas={"acme": QUOTA}, use_cases=["mail"]))
        self.model |= {
            job.id: Model(run_at, 2, None) for job, run_at in zip(jobs, run_ats, strict=True)
        }
        return multiple(*[job.id for job in jobs])

    def _refused(self, conflict: DedupeConflict, twin: UUID | None) -> Any:
        assert conflict.job_id == twin
        return multiple()

    @rule(seconds=st.sampled_from([1.0, 15.0, 31.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def promote(self) -> None:
        promoted = self.run(self.store.promote_due(100))["mail"]
        ready = [
            job
            for job in self.model.values()
            if job.status == "pending"
            and not job.due
            and job.expires_at is None
            and job.run_at <= self.now
        ]
        assert promoted == len(ready)
        for job in ready:
            job.due = True

    @rule(target=tickets)
    def dispatch(self) -> Any:
        return multiple(*[Ticket(one.job_id, one.lease_seq) for one in self._leased()])

    @rule(target=attempts)
    def dispatch_and_start(self) -> Any:
        """The usual way, so that walks get far."""
        self._leased()
        return self._picked(slots=3)

    def _leased(self) -> Any:
        leased = self.run(self._dispatch())
        waiting = [job for job in self.model.values() if job.due]
        assert len(leased) == min(len(waiting), max(0, CAPACITY - len(self.held())))
        urgencies = [job.run_at for job in waiting if job not in self._models(leased)]
        assert all(mine.run_at <= other for mine in self._models(leased) for other in urgencies)
        for one in leased:
            job = self.model[one.job_id]
            self._given_a_lease(job)
            assert one.lease_seq == job.lease_seq
        return leased

    def _models(self, leased: Any) -> list[Model]:
        return [self.model[one.job_id] for one in leased]

    async def _dispatch(self) -> Any:
        async with self.store.take_turn("mail") as turn:
            assert turn is not None
            held = (await turn.count_in_flight()).total
            assert held == len(self.held())
            return await turn.lease_due(max(0, CAPACITY - held), lease_seconds=LEASE_SECONDS)

    @rule(ticket=tickets)
    def a_message_is_not_accepted(self, ticket: Ticket) -> None:
        released = self.run(self.store.release([ticket], enqueue_failed=True))
        job = self.model.get(ticket.job_id)
        valid = job is not None and self._leased_under(job, ticket.lease_seq)
        assert released == int(valid)
        if valid and job is not None:
            job.wait(job.run_at, due=True)

    def _leased_under(self, job: Model, lease_seq: int | None) -> bool:
        return (
            job.status == "pending"
            and job.expires_at is not None
            and lease_seq in (None, job.lease_seq)
        )

    @rule(target=attempts, ticket=tickets, bare=st.booleans())
    def a_message_arrives(self, ticket: Ticket, bare: bool) -> Any:
        ticket = replace(ticket, lease_seq=None) if bare else ticket
        started = self.run(self.store.start([ticket], worker="w", lease_seconds=LEASE_SECONDS))
        job = self.model.get(ticket.job_id)
        opens = (
            job is not None
            and self._leased_under(job, ticket.lease_seq)
            and job.expires_at is not None
            and job.expires_at > self.now
        )
        assert len(started) == int(opens)
        return self._begun(started)

    @rule(target=attempts, slots=st.integers(0, 2), claims=st.booleans())
    def a_worker_picks_from_the_table(self, slots: int, claims: bool) -> Any:
        return self._claimed(slots) if claims and slots else self._picked(slots)

    def _picked(self, slots: int) -> Any:
        started = self.run(
            self.store.start_leased(
                ["mail-queue"], slots=slots, worker="w", lease_seconds=LEASE_SECONDS
            )
        )
        open_leases = [
            job
            for job in self.held()
            if job.status == "pending" and job.expires_at is not None and job.expires_at > self.now
        ]
        assert len(started) == min(slots, len(open_leases))
        return self._begun(started)

    def _claimed(self, slots: int) -> Any:
        """By a scheduler's leave, and in a turn of its own."""
        waiting = [job for job in self.model.values() if job.due]
        room = max(0, CAPACITY - len(self.held()))
        late = any(job.run_at + TOLERANCE < self.now for job in waiting)
        claimed = self.run(self._claim(slots))
        if late or not waiting:
            assert claimed is None or not claimed.jobs
            return multiple()
        assert len(claimed.jobs) == min(slots, room, len(waiting))
        mine = [self.model[one.id] for one in claimed.jobs]
        left = [job.run_at for job in waiting if job not in mine]
        assert all(job.run_at <= other for job in mine for other in left)
        for job in mine:
            self._given_a_lease(job)
        return self._begun(claimed.jobs)

    async def _claim(self, slots: int) -> Any:
        await self.store.claims.ask(["mail"])
        async with self.store.take_turn("mail") as turn:
            assert turn is not None
            await turn.grant(CAPACITY, seconds=3_600.0)
        return await self.store.claims.claim(
            ["mail"], ["mail-queue"], slots=slots, worker="w", lease_seconds=LEASE_SECONDS
        )

    def _begun(self, started: list[StartedJob]) -> Any:
        for one in started:
            job = self.model[one.id]
            job.status, job.attempts = "running", job.attempts + 1
            job.expires_at = self.now + timedelta(seconds=LEASE_SECONDS)
            assert (one.attempts, one.lease_seq) == (job.attempts, job.lease_seq)
            assert one.attempts <= one.max_attempts
        return multiple(*sorted(started, key=lambda one: one.id))

    def _given_a_lease(self, job: Model) -> None:
        job.lease_seq += 1
        job.due, job.expires_at = False, self.now + timedelta(seconds=LEASE_SECONDS)

    @rule(attempt=attempts, outcome=st.sampled_from(OUTCOMES))
    def an_attempt_ends(self, attempt: StartedJob, outcome: Outcome) -> None:
        """The attempt may long have been taken over: its worker vanished and came back."""
        outcome = self._possible(attempt, outcome)
        recorded = self.run(self.store.finish([(attempt, outcome)]))
        job = self.model.get(attempt.id)
        holds = job is not None and job.status == "running" and job.lease_seq == attempt.lease_seq
        assert recorded == ({attempt.id} if holds else set())
        if holds and job is not None:
            self._ended(job, outcome)

    def _possible(self, attempt: StartedJob, outcome: Outcome) -> Outcome:
        """A worker never retries the last attempt: core/outcome.py buries it."""
        last = attempt.attempts >= attempt.max_attempts
        return BURIED if last and outcome in (RETRIED, RETRIED_AT_ONCE) else outcome

    def _ended(self, job: Model, outcome: Outcome) -> None:
        job.attempts -= int(outcome.gives_attempt_back)
        if outcome.status != "pending":
            job.end(outcome.status.value)
            return
        delay = outcome.delay_seconds
        job.wait(
            job.run_at if delay is None else self.now + timedelta(seconds=delay), due=not delay
        )
        if job.asked:
            job.end("cancelled")

    @rule(wait_seconds=st.sampled_from([0.0, LEASE_SECONDS]))
    def workers_vanish_and_the_scheduler_rescues(self, wait_seconds: float) -> None:
        self.clock.advance(wait_seconds)
        rescued = self.run(self.store.rescue(100))
        lost = [
            job for job in self.held() if job.expires_at is not None and job.expires_at <= self.now
        ]
        assert len(rescued) == len(lost)
        assert {one.was_running for one in rescued} == {job.status == "running" for job in lost}
        for job in lost:
            if job.status == "pending":
                job.wait(job.run_at, due=True)
            elif job.asked:
                job.end("cancelled")
            elif job.attempts >= job.max_attempts:
                job.end("dead")
            else:
                job.wait(self.now, due=True)

    @rule(target=attempts)
    def a_worker_is_believed_dead_and_its_job_runs_elsewhere(self) -> Any:
        """From here on two workers think that the job is theirs."""
        self.workers_vanish_and_the_scheduler_rescues(LEASE_SECONDS)
        self._leased()
        return self._picked(slots=3)

    @rule(job_id=ids)
    def cancel(self, job_id: UUID) -> None:
        self._cancel(job_id)

    @rule(attempt=attempts)
    def cancel_what_runs(self, attempt: StartedJob) -> None:
        self._cancel(attempt.id)

    def _cancel(self, job_id: UUID) -> None:
        row = self.run(self.store.cancel(job_id))
        job = self.model.get(job_id)
        assert (row is None) == (job is None or job.finished)
        if job is None or job.finished:
            return
        job.asked = True
        if job.status == "pending":
            job.end("cancelled")

    @rule(job_id=ids)
    def requeue(self, job_id: UUID) -> None:
        job = self.model.get(job_id)
        twin = self.twin(job.dedupe_key) if job and job.finished else None
        try:
            row = self.run(self.store.requeue(job_id, more_attempts=1))
        except MoveRefused:
            assert twin is not None
            return
        assert twin is None
        assert (row is not None) == (job is not None and job.finished)
        if row is not None and job is not None:
            job.wait(self.now, due=True)
            job.asked, job.max_attempts = False, job.attempts + 1

    @rule()
    def prune(self) -> None:
        deleted = self.run(self.store.prune("mail", retention_seconds=-1, most=1))
        assert deleted == int(any(job.finished for job in self.model.values()))
        left = {job.id for job in self.run(self.store.find(limit=100)).jobs}
        self.model = {job_id: job for job_id, job in self.model.items() if job_id in left}

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        rows = {
            row.id: Model(
                row.run_at,
                row.max_attempts,
                row.dedupe_key,
                row.status.value,
                row.due,
                row.attempts,
                row.lease_seq,
                row.lease_expires_at,
                row.cancel_requested_at is not None,
            )
            for row in self.run(self.store.find(limit=100)).jobs
        }
        assert rows == self.model
