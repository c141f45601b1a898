"""Waiting jobs whose deadline has passed are ended in bounded batches, and only those."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from async_jobs.models import JobStatus
from async_jobs.store.jobs import JobStore
from async_jobs.store.late import EndedLate

from .factories import RETRIED, JobFactory, SettableClock, new_job


async def end_late(
    store: JobStore, status: JobStatus = JobStatus.CANCELLED, *, most: int = 100
) -> list[EndedLate]:
    async with store.take_turn("mail") as turn:
        assert turn is not None
        return await turn.end_late(status, most=most)


@pytest.mark.parametrize("status", [JobStatus.CANCELLED, JobStatus.DEAD])
async def test_a_late_waiting_job_ends_without_an_attempt_and_says_how_late_it_was(
    store: JobStore, jobs: JobFactory, clock: SettableClock, status: JobStatus
) -> None:
    job = await jobs.waiting(delay_tolerance_seconds=10.0)
    clock.advance(12.5)

    (ended,) = await end_late(store, status)

    row = await jobs.row(job)
    assert (ended.job_id, ended.tenant_id, ended.type) == (job.id, "acme", "send")
    assert ended.late_by_seconds == 2.5
    assert (row.status, row.attempts, row.due, row.finished_at) == (status, 0, False, clock.at)
    assert row.last_error == {
        "type": "DeadlineMissed",
        "message": "not started: its deadline had passed 2.500 s before",
        "attempt": 0,
        "late_by_seconds": 2.5,
    }
    assert ended.last_error == row.last_error


async def test_what_is_in_time_scheduled_leased_or_running_is_left_alone(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    kept = [
        await jobs.waiting(delay_tolerance_seconds=12.5),
        await jobs.waiting(delay_tolerance_seconds=60.0),
        await jobs.leased(delay_tolerance_seconds=1.0),
        await jobs.running(delay_tolerance_seconds=1.0),
        await jobs.waiting(delay_tolerance_seconds=1.0, use_case="label"),
    ]
    retried = await jobs.finished(RETRIED, delay_tolerance_seconds=1.0)
    clock.advance(12.5)

    assert await end_late(store) == []
    for job in (*kept, retried):
        assert not (await jobs.row(job)).status.is_finished


async def test_a_retry_that_waits_beyond_its_own_deadline_ends_with_the_attempts_it_used(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.finished(RETRIED, delay_tolerance_seconds=1.0)
    clock.advance(50)
    await store.promote_due(10)

    (ended,) = await end_late(store)

    assert (ended.job_id, ended.attempts) == (job.id, 1)
    assert (await jobs.row(job)).attempts == 1


async def test_a_batch_is_bounded_and_takes_the_oldest_deadlines(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    made = [await jobs.waiting(delay_tolerance_seconds=float(wait)) for wait in (3, 1, 2)]
    clock.advance(10)

    ended = await end_late(store, most=2)

    assert {one.job_id for one in ended} == {made[1].id, made[2].id}
    assert [one.job_id for one in await end_late(store, most=2)] == [made[0].id]


async def test_a_row_that_somebody_else_changes_is_passed_over(
    store: JobStore, jobs: JobFactory, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    held, free = [await jobs.waiting(delay_tolerance_seconds=1.0) for _ in range(2)]
    clock.advance(10)
    with db.transaction():
        db.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [held.id])
        ended = await end_late(store)

    assert [one.job_id for one in ended] == [free.id]


async def test_its_dedupe_key_is_free_again(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.waiting(delay_tolerance_seconds=1.0, dedupe_key="once")
    clock.advance(10)
    await end_late(store)

    (again,) = await store.enqueue([new_job(dedupe_key="once")])

    assert not again.deduplicated
