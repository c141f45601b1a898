"""The worker's moves: start, start_leased, extend, finish with every outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import Outcome
from async_jobs.models import JobStatus, Ticket, new_job_id
from async_jobs.store.jobs import JobStore
from async_jobs.store.lease_keeper import LeaseKeeper

from .factories import (
    BURIED,
    CANCELLED,
    LEASE_SECONDS,
    MIDNIGHT,
    RELEASED,
    RETRIED,
    RETRIED_AT_ONCE,
    SNOOZED,
    SUCCEEDED,
    JobFactory,
    SettableClock,
    ticket,
)

EVERY_OUTCOME = {
    "succeed": SUCCEEDED,
    "retry": RETRIED,
    "retry_at_once": RETRIED_AT_ONCE,
    "snooze": SNOOZED,
    "bury": BURIED,
    "cancel": CANCELLED,
    "release": RELEASED,
}


# Start


async def test_a_started_job_carries_what_its_attempt_needs(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    leased = await jobs.leased(backoff_json='{"type": "linear"}')
    clock.advance(2)

    (started,) = await store.start([ticket(leased)], worker="w", lease_seconds=12.5)

    row = await jobs.row(leased)
    assert (started.id, started.lease_seq, started.attempts) == (leased.job_id, 1, 1)
    assert (started.payload, started.backoff_policy) == ({"to": "ada"}, {"type": "linear"})
    assert started.started_at == row.started_at == MIDNIGHT + timedelta(seconds=2)
    assert row.lease_expires_at == MIDNIGHT + timedelta(seconds=14.5)
    assert (row.status, row.worker, row.leased_at) == (JobStatus.RUNNING, "w", MIDNIGHT)
    assert (started.waited_seconds, started.lateness_seconds) == (2.0, -58.0)


async def test_a_second_delivery_finds_the_door_shut(store: JobStore, jobs: JobFactory) -> None:
    leased = await jobs.leased()
    await jobs.start(leased)

    for again in (ticket(leased), Ticket(leased.job_id, None)):
        assert await store.start([again], worker="w", lease_seconds=5) == []
    assert (await jobs.row(leased)).attempts == 1


async def test_the_same_ticket_twice_in_one_batch_starts_once(
    store: JobStore, jobs: JobFactory
) -> None:
    leased = await jobs.leased()

    started = await store.start([ticket(leased)] * 3, worker="w", lease_seconds=5)

    assert [job.attempts for job in started] == [1]


async def test_a_lease_that_ran_out_on_the_way_does_not_start(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    leased = await jobs.leased()
    clock.advance(LEASE_SECONDS)

    assert await store.start([ticket(leased)], worker="w", lease_seconds=5) == []


@pytest.mark.parametrize("lease_seq", [0, 2, 2**63 - 1])
async def test_another_lease_than_the_current_does_not_start(
    store: JobStore, jobs: JobFactory, lease_seq: int
) -> None:
    leased = await jobs.leased()

    assert await store.start([Ticket(leased.job_id, lease_seq)], worker="w", lease_seconds=5) == []


async def test_a_bare_id_starts_the_lease_the_job_has(store: JobStore, jobs: JobFactory) -> None:
    leased = await jobs.leased()

    started = await store.start([Ticket(leased.job_id, None)], worker="w", lease_seconds=5)

    assert [job.lease_seq for job in started] == [1]


async def test_a_bare_id_of_a_job_without_a_lease_does_not_start(
    store: JobStore, jobs: JobFactory
) -> None:
    waiting, done = await jobs.waiting(), await jobs.finished()
    tickets = [Ticket(job_id, None) for job_id in (waiting.id, done.id, new_job_id())]

    assert await store.start(tickets, worker="w", lease_seconds=5) == []


async def test_a_batch_starts_what_it_can(store: JobStore, jobs: JobFactory) -> None:
    good = [await jobs.leased() for _ in range(3)]
    stale = await jobs.running()

    started = await store.start(
        [*map(ticket, good), ticket(stale), Ticket(new_job_id(), 1)], worker="w", lease_seconds=5
    )

    assert {job.id for job in started} == {job.job_id for job in good}


async def test_a_job_without_an_attempt_left_does_not_keep_its_batch_from_starting(
    store: JobStore, jobs: JobFactory, pool: AsyncConnectionPool[Any]
) -> None:
    good, spent = await jobs.leased(), await jobs.leased()
    async with pool.connection() as conn:
        await conn.execute("UPDATE jobs SET attempts = max_attempts WHERE id = %s", [spent.job_id])

    started = await store.start([ticket(spent), ticket(good)], worker="w", lease_seconds=5)

    assert [job.id for job in started] == [good.job_id]


async def test_a_requeued_job_is_not_started_by_the_message_of_its_former_life(
    store: JobStore, jobs: JobFactory
) -> None:
    leased = await jobs.leased()
    await store.cancel(leased.job_id)
    await store.requeue(leased.job_id, more_attempts=1)
    await jobs.lease_again(leased.job_id)

    assert await store.start([ticket(leased)], worker="w", lease_seconds=5) == []


# Start straight from the table


async def test_a_job_without_an_attempt_left_does_not_keep_the_others_from_starting(
    store: JobStore, jobs: JobFactory, pool: AsyncConnectionPool[Any]
) -> None:
    good, spent = await jobs.leased(), await jobs.leased()
    async with pool.connection() as conn:
        await conn.execute("UPDATE jobs SET attempts = max_attempts WHERE id = %s", [spent.job_id])

    started = await store.start_leased(["mail-queue"], slots=2, worker="w", lease_seconds=5)

    assert [job.id for job in started] == [good.job_id]


async def test_leased_jobs_are_started_most_urgent_first_up_to_the_slots(
    store: JobStore, jobs: JobFactory
) -> None:
    late, early, middle = [await jobs.leased(delay_tolerance_seconds=s) for s in (30, 10, 20)]

    started = await store.start_leased(["mail-queue"], slots=2, worker="w", lease_seconds=5)

    assert {job.id for job in started} == {early.job_id, middle.job_id}
    assert {(job.attempts, job.lease_seq) for job in started} == {(1, 1)}
    assert (await jobs.row(late)).status is JobStatus.PENDING


async def test_jobs_of_other_queues_and_without_a_live_lease_stay(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.leased()
    clock.advance(LEASE_SECONDS)
    await jobs.leased(queue="other")
    await jobs.waiting()
    await jobs.running()
    await jobs.finished()

    assert await store.start_leased(["mail-queue"], slots=9, worker="w", lease_seconds=5) == []


async def test_no_slots_start_nothing(store: JobStore, jobs: JobFactory) -> None:
    await jobs.leased()

    assert await store.start_leased(["mail-queue"], slots=0, worker="w", lease_seconds=5) == []


# Extend (on the database's own clock)


async def test_a_heartbeat_renews_the_lease(
    live_jobs: JobFactory, make_keeper: Callable[[], LeaseKeeper]
) -> None:
    job = await live_jobs.running()

    answer = make_keeper().extend({job.id: job.lease_seq}, lease_seconds=500)

    renewed = (await live_jobs.row(job)).lease_expires_at
    assert answer == {job.id: False}
    assert renewed is not None
    assert renewed > job.lease_expires_at + timedelta(seconds=400)


async def test_a_heartbeat_learns_that_a_cancel_was_asked_for(
    live_store: JobStore, live_jobs: JobFactory, make_keeper: Callable[[], LeaseKeeper]
) -> None:
    asked, other = await live_jobs.running(), await live_jobs.running()
    await live_store.cancel(asked.id)

    answer = make_keeper().extend({asked.id: 1, other.id: 1}, lease_seconds=5)

    assert answer == {asked.id: True, other.id: False}


async def test_a_heartbeat_does_not_answer_for_what_is_lost(
    live_store: JobStore, live_jobs: JobFactory, make_keeper: Callable[[], LeaseKeeper]
) -> None:
    done, leased = await live_jobs.finished(), await live_jobs.leased()
    running = await live_jobs.running()
    held = {done.id: 1, leased.job_id: 1, running.id: 2, new_job_id(): 1}

    assert make_keeper().extend(held, lease_seconds=5) == {}
    assert (await live_jobs.row(running)).lease_expires_at == running.lease_expires_at


# Finish


@pytest.mark.parametrize(
    ("outcome", "status", "attempts", "due"),
    [
        (SUCCEEDED, "succeeded", 1, False),
        (RETRIED, "pending", 1, False),
        (RETRIED_AT_ONCE, "pending", 1, True),
        (SNOOZED, "pending", 0, False),
        (BURIED, "dead", 1, False),
        (CANCELLED, "cancelled", 1, False),
        (RELEASED, "pending", 0, True),
    ],
    ids=EVERY_OUTCOME,
)
async def test_an_outcome_is_written_on_the_row(
    store: JobStore,
    jobs: JobFactory,
    clock: SettableClock,
    outcome: Outcome,
    status: str,
    attempts: int,
    due: bool,
) -> None:
    job = await jobs.running()
    clock.advance(3)

    recorded = await store.finish([(job, outcome)])

    row = await jobs.row(job)
    assert recorded == {job.id}
    assert (row.status, row.attempts, row.due) == (status, attempts, due)
    assert (row.leased_at, row.lease_expires_at, row.lease_seq) == (None, None, 1)
    assert row.is_retry is (outcome.move is Move.RETRY)
    assert row.finished_at == (None if status == "pending" else clock.now())
    assert row.updated_at == clock.now()


@pytest.mark.parametrize("outcome", [RETRIED, SNOOZED], ids=["retry", "snooze"])
async def test_a_wait_moves_run_at_and_deadline_and_keeps_the_first_promise(
    store: JobStore, jobs: JobFactory, clock: SettableClock, outcome: Outcome
) -> None:
    job = await jobs.running()
    clock.advance(3)
    await store.finish([(job, outcome)])

    row = await jobs.row(job)
    assert row.run_at == MIDNIGHT + timedelta(seconds=43)
    assert row.deadline_at == MIDNIGHT + timedelta(seconds=103)
    assert row.first_run_at == MIDNIGHT


async def test_a_second_retry_keeps_the_first_promise_too(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    await store.finish([(job, RETRIED_AT_ONCE)])
    clock.advance(5)
    again = await jobs.start(await jobs.lease_again(job.id))
    await store.finish([(again, RETRIED)])

    row = await jobs.row(job)
    assert (row.first_run_at, row.attempts) == (MIDNIGHT, 2)


@pytest.mark.parametrize("outcome", [RELEASED, replace(BURIED, delay_seconds=40.0)])
async def test_who_does_not_wait_leaves_run_at_and_deadline_where_they_were(
    store: JobStore, jobs: JobFactory, clock: SettableClock, outcome: Outcome
) -> None:
    job = await jobs.running()
    clock.advance(3)
    await store.finish([(job, outcome)])

    row = await jobs.row(job)
    assert (row.run_at, row.deadline_at, row.first_run_at) == (job.run_at, job.deadline_at, None)


async def test_error_and_result_are_kept(store: JobStore, jobs: JobFactory) -> None:
    failed = await jobs.finished(RETRIED_AT_ONCE)
    again = await jobs.start(await jobs.lease_again(failed.id))
    await store.finish([(again, SUCCEEDED)])

    row = await jobs.row(failed)
    assert row.result == {"ok": True}
    assert row.last_error == {"type": "Boom"}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (SUCCEEDED, "succeeded"),
        (BURIED, "dead"),
        (CANCELLED, "cancelled"),
        (RETRIED, "cancelled"),
        (RETRIED_AT_ONCE, "cancelled"),
        (SNOOZED, "cancelled"),
        (RELEASED, "cancelled"),
    ],
)
async def test_a_job_whose_cancel_was_asked_for_never_goes_back_to_pending(
    store: JobStore, jobs: JobFactory, outcome: Outcome, status: str
) -> None:
    job = await jobs.running()
    await store.cancel(job.id)

    assert await store.finish([(job, outcome)]) == {job.id}
    row = await jobs.row(job)
    assert (row.status, row.due) == (status, False)
    assert row.finished_at == MIDNIGHT


@pytest.mark.parametrize("outcome", EVERY_OUTCOME.values(), ids=EVERY_OUTCOME)
async def test_who_does_not_hold_the_lease_writes_nothing(
    store: JobStore, jobs: JobFactory, outcome: Outcome
) -> None:
    job = await jobs.running()
    before = await jobs.row(job)
    for lease_seq in (0, 2):
        assert await store.finish([(job._replace(lease_seq=lease_seq), outcome)]) == set()

    assert await jobs.row(job) == before


@pytest.mark.parametrize("outcome", EVERY_OUTCOME.values(), ids=EVERY_OUTCOME)
async def test_a_second_finish_writes_nothing(
    store: JobStore, jobs: JobFactory, outcome: Outcome
) -> None:
    job = await jobs.finished(outcome)
    before = await jobs.row(job)

    assert await store.finish([(job, BURIED)]) == set()
    assert await jobs.row(job) == before


async def test_a_finish_after_the_lease_ran_out_counts_until_somebody_took_the_job(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    clock.advance(LEASE_SECONDS + 100)

    assert await store.finish([(job, SUCCEEDED)]) == {job.id}


async def test_a_batch_of_every_outcome_is_one_write(store: JobStore, jobs: JobFactory) -> None:
    running = [await jobs.running() for _ in EVERY_OUTCOME]
    lost = (await jobs.running())._replace(lease_seq=9)
    pairs = list(zip(running, EVERY_OUTCOME.values(), strict=True))

    recorded = await store.finish([(lost, SUCCEEDED), *pairs])

    assert recorded == {job.id for job in running}
    for job, outcome in pairs:
        assert (await jobs.row(job)).status is outcome.status


async def test_nothing_to_finish_is_nothing_written(store: JobStore) -> None:
    assert await store.finish([]) == set()
