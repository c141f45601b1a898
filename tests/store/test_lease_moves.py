"""The scheduler's moves: promote, lease, release, rescue, prune, survey."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from async_jobs.models import JobStatus, Ticket
from async_jobs.store.jobs import JobStore

from .factories import (
    BURIED,
    LEASE_SECONDS,
    MIDNIGHT,
    RETRIED,
    SUCCEEDED,
    JobFactory,
    SettableClock,
    new_job,
    ticket,
)

SOON = MIDNIGHT + timedelta(seconds=10)


# Promote


async def test_a_scheduled_job_is_promoted_when_its_time_has_come(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.waiting(run_at=SOON)
    early = await store.promote_due(10)
    clock.advance(10)
    on_time = await store.promote_due(10)

    assert (early, on_time) == (Counter(), Counter(mail=1))
    assert (await jobs.row(job)).due


async def test_a_promotion_takes_the_earliest_first_and_no_more_than_asked(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    late, early = [await jobs.waiting(run_at=SOON - timedelta(seconds=s)) for s in (1, 2)]
    clock.advance(60)

    await store.promote_due(1)

    assert ((await jobs.row(early)).due, (await jobs.row(late)).due) == (True, False)


async def test_a_promotion_leaves_leased_and_finished_jobs_alone(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.leased()
    await jobs.running()
    await jobs.finished()
    clock.advance(10_000)

    assert not await store.promote_due(10)


async def test_a_promotion_passes_by_what_waits_already(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.waiting()
    scheduled = await jobs.waiting(run_at=SOON)
    clock.advance(10)

    assert await store.promote_due(1) == Counter(mail=1)
    assert (await jobs.row(scheduled)).due


# Lease


async def test_a_lease_is_written_on_the_row(jobs: JobFactory) -> None:
    job = await jobs.waiting()

    (leased,) = await jobs.lease()

    row = await jobs.row(job)
    assert (leased.job_id, leased.lease_seq) == (job.id, 1)
    assert (row.status, row.due, row.lease_seq, row.attempts) == (JobStatus.PENDING, False, 1, 0)
    assert (row.leased_at, row.lease_expires_at) == (
        MIDNIGHT,
        MIDNIGHT + timedelta(seconds=LEASE_SECONDS),
    )


async def test_the_most_urgent_jobs_are_leased_most_urgent_first(jobs: JobFactory) -> None:
    wanted = [
        await jobs.waiting(delay_tolerance_seconds=tolerance, priority=priority)
        for tolerance, priority in [(99, 32_767), (9, 0), (1, 0), (5, 0), (5, 3), (5, 0)]
    ]

    leased = await jobs.lease(5)

    assert [wanted[n].id for n in (2, 4, 3, 5, 1)] == [job.job_id for job in leased]


async def test_a_lease_keeps_to_its_use_case(jobs: JobFactory) -> None:
    await jobs.waiting(use_case="label")

    assert list(await jobs.lease()) == []


async def test_scheduled_leased_running_and_finished_jobs_are_not_leased(
    jobs: JobFactory,
) -> None:
    await jobs.waiting(run_at=SOON)
    await jobs.leased()
    await jobs.running()
    await jobs.finished()

    assert list(await jobs.lease()) == []


async def test_no_slots_lease_nothing(jobs: JobFactory) -> None:
    await jobs.waiting()

    assert list(await jobs.lease(0)) == []


async def test_every_lease_has_a_larger_number(store: JobStore, jobs: JobFactory) -> None:
    leased = await jobs.leased()
    for expected in (2, 3, 4):
        await store.release([ticket(leased)], enqueue_failed=False)
        leased = await jobs.lease_again(leased.job_id)

        assert leased.lease_seq == expected


# Release


@pytest.mark.parametrize("enqueue_failed", [True, False])
async def test_a_released_job_waits_again_as_it_was(
    store: JobStore, jobs: JobFactory, enqueue_failed: bool
) -> None:
    leased = await jobs.leased()

    took_effect = await store.release([ticket(leased)], enqueue_failed=enqueue_failed)

    row = await jobs.row(leased)
    assert (took_effect, row.due, row.attempts, row.lease_seq) == (1, True, 0, 1)
    assert (row.leased_at, row.enqueue_failed) == (None, enqueue_failed)


async def test_the_next_lease_forgets_that_a_message_was_not_accepted(
    store: JobStore, jobs: JobFactory
) -> None:
    leased = await jobs.leased()
    await store.release([ticket(leased)], enqueue_failed=True)

    await jobs.lease_again(leased.job_id)

    assert not (await jobs.row(leased)).enqueue_failed


async def test_only_the_lease_of_the_ticket_is_released(store: JobStore, jobs: JobFactory) -> None:
    old = await jobs.leased()
    await store.release([ticket(old)], enqueue_failed=False)
    await jobs.lease_again(old.job_id)
    running = await jobs.running()
    waiting = await jobs.waiting()

    took_effect = await store.release(
        [ticket(old), ticket(running), Ticket(waiting.id, 0)], enqueue_failed=True
    )

    assert took_effect == 0


# Rescue


async def test_a_lease_that_is_alive_is_not_rescued(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.leased()
    await jobs.running()
    clock.advance(LEASE_SECONDS - 0.001)

    assert await store.rescue(10) == []


async def test_a_lost_message_costs_no_attempt(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    before = await jobs.row(await jobs.leased())
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    row = await jobs.row(before.id)
    assert (rescued.was_running, rescued.status) == (False, JobStatus.PENDING)
    assert (row.due, row.attempts, row.last_error) == (True, 0, None)
    assert (row.run_at, row.deadline_at) == (before.run_at, before.deadline_at)
    assert (row.first_run_at, row.is_retry) == (None, False)


async def test_a_lost_worker_costs_the_attempt_it_had_started(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    row = await jobs.row(job)
    assert (rescued.was_running, rescued.status, rescued.worker) == (
        True,
        JobStatus.PENDING,
        "worker-1",
    )
    assert (row.due, row.attempts, row.lease_seq) == (True, 1, 1)
    assert (row.run_at, row.first_run_at, row.is_retry) == (clock.now(), MIDNIGHT, True)
    assert row.deadline_at == clock.now() + timedelta(seconds=60)
    assert row.last_error is not None
    assert (row.last_error["type"], row.last_error["attempt"]) == ("WorkerLost", 1)


async def test_a_job_whose_last_attempt_was_lost_is_dead(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running(max_attempts=1)
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    row = await jobs.row(job)
    assert rescued.status is row.status is JobStatus.DEAD
    assert (row.due, row.finished_at, row.leased_at) == (False, clock.now(), None)
    assert (row.run_at, row.deadline_at) == (job.run_at, job.deadline_at)
    assert row.first_run_at is None


async def test_a_lost_worker_does_not_bring_back_a_cancelled_job(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    await store.cancel(job.id)
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    row = await jobs.row(job)
    assert rescued.status is JobStatus.CANCELLED
    assert (row.finished_at, row.first_run_at) == (clock.now(), None)


async def test_a_rescue_says_was_running_only_of_what_ran(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    clock.advance(LEASE_SECONDS)
    await store.rescue(10)
    await jobs.lease_again(job.id)
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    assert not rescued.was_running


async def test_a_rescue_takes_the_longest_lost_first_and_no_more_than_asked(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    first = await jobs.leased()
    clock.advance(1)
    await jobs.leased()
    clock.advance(LEASE_SECONDS)

    rescued = await store.rescue(1)

    assert [job.job_id for job in rescued] == [first.job_id]


async def test_a_foreign_last_error_does_not_stop_the_rescue(
    store: JobStore, jobs: JobFactory, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    await jobs.leased()
    await jobs.leased()
    db.execute('UPDATE jobs SET last_error = \'{"lease_seq": "three"}\'')
    clock.advance(LEASE_SECONDS)

    rescued = await store.rescue(10)

    assert [job.was_running for job in rescued] == [False, False]


async def test_a_leased_job_without_an_attempt_left_does_not_keep_its_batch_from_rescue(
    store: JobStore, jobs: JobFactory, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    good, spent = await jobs.leased(), await jobs.leased()
    db.execute("UPDATE jobs SET attempts = max_attempts WHERE id = %s", [spent.job_id])
    clock.advance(LEASE_SECONDS)

    rescued = await store.rescue(10)

    assert {job.job_id for job in rescued} == {good.job_id, spent.job_id}
    assert [(await jobs.row(job)).due for job in (good, spent)] == [True, True]


# Prune


async def test_only_finished_jobs_older_than_the_retention_are_deleted(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    old = [await jobs.finished(SUCCEEDED), await jobs.finished(BURIED)]
    running = await jobs.running()
    waiting = await jobs.finished(RETRIED)
    other = await jobs.finished(use_case="label")
    clock.advance(100)
    young = await jobs.finished(SUCCEEDED)
    clock.advance(1)

    deleted = await store.prune("mail", retention_seconds=100, most=10)

    assert deleted == 2
    assert [await store.get(job.id) for job in old] == [None, None]
    assert all([await store.get(job.id) for job in (running, waiting, other, young)])


async def test_a_prune_takes_the_oldest_first_and_no_more_than_asked(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    oldest = await jobs.finished()
    clock.advance(1)
    younger = await jobs.finished()
    clock.advance(100)

    assert await store.prune("mail", retention_seconds=5, most=1) == 1
    assert (await store.get(oldest.id), bool(await store.get(younger.id))) == (None, True)


# Survey


async def test_a_survey_of_an_empty_table_finds_nothing(store: JobStore) -> None:
    survey = await store.survey(["mail"])

    assert survey.use_cases_with_work == []
    assert (survey.next_due_in_seconds, survey.next_expiry_in_seconds) == (None, None)


async def test_a_survey_tells_what_there_is_and_what_comes_next(
    store: JobStore, jobs: JobFactory
) -> None:
    await store.enqueue([new_job(use_case="label"), new_job(use_case="unknown")])
    for seconds in (20.0, 7.5):
        await jobs.waiting(run_at=MIDNIGHT + timedelta(seconds=seconds))
    await jobs.leased(use_case="thumb")

    survey = await store.survey(["label", "mail", "thumb"])

    assert survey.use_cases_with_work == ["label"]
    assert survey.next_due_in_seconds == 7.5
    assert survey.next_expiry_in_seconds == LEASE_SECONDS


async def test_a_survey_tells_what_is_late_as_negative_seconds(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.waiting(run_at=SOON)
    await jobs.running()
    clock.advance(LEASE_SECONDS + 5)

    survey = await store.survey(["mail"])

    assert (survey.next_due_in_seconds, survey.next_expiry_in_seconds) == (-25.0, -5.0)
