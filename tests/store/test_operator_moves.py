"""The operators' moves: get, find, cancel, requeue."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from async_jobs.core.outcome import Outcome
from async_jobs.errors import MoveRefused
from async_jobs.models import JobStatus, Page, new_job_id
from async_jobs.store.jobs import JobStore

from .factories import (
    BURIED,
    CANCELLED,
    MIDNIGHT,
    RETRIED,
    SUCCEEDED,
    JobFactory,
    SettableClock,
    ticket,
)


async def test_an_unknown_job_is_none_everywhere(store: JobStore) -> None:
    unknown = new_job_id()

    assert await store.get(unknown) is None
    assert await store.cancel(unknown) is None
    assert await store.requeue(unknown, more_attempts=1) is None


# Find


async def test_pages_go_newest_first_to_the_end_without_gap_or_repeat(
    store: JobStore, jobs: JobFactory
) -> None:
    made = sorted([(await jobs.waiting()).id for _ in range(7)], reverse=True)
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = await store.find(limit=3, before=cursor)
        seen += [job.id for job in page.jobs]
        cursor, pages = page.next_cursor, pages + 1

    assert (seen, pages) == (made, 3)


async def test_a_last_page_that_is_full_says_that_it_is_the_last(
    store: JobStore, jobs: JobFactory
) -> None:
    for _ in range(3):
        await jobs.waiting()

    page = await store.find(limit=3)

    assert (len(page.jobs), page.next_cursor) == (3, None)


async def test_filters_narrow_and_combine(store: JobStore, jobs: JobFactory) -> None:
    wanted = await jobs.finished(BURIED, tenant_id="bolt", use_case="label")
    await jobs.waiting(tenant_id="bolt", use_case="label")
    await jobs.finished(BURIED, tenant_id="bolt")
    await jobs.finished(BURIED, use_case="label")

    page = await store.find(tenant_id="bolt", use_case="label", status=JobStatus.DEAD)

    assert [job.id for job in page.jobs] == [wanted.id]


async def test_what_holds_a_lease_is_listed_in_its_place_among_the_others(
    store: JobStore, jobs: JobFactory
) -> None:
    first = await jobs.waiting(tenant_id="acme")
    running = await jobs.running(tenant_id="acme")
    await jobs.running(tenant_id="bolt")
    last = await jobs.waiting(tenant_id="acme")

    of_tenant = await store.find(tenant_id="acme", limit=2)
    rest = await store.find(tenant_id="acme", limit=2, before=of_tenant.next_cursor)
    run = await store.find(tenant_id="acme", status=JobStatus.RUNNING)

    assert [job.id for job in of_tenant.jobs] == [last.id, running.id]
    assert [job.id for job in rest.jobs] == [first.id]
    assert [job.id for job in run.jobs] == [running.id]


async def test_filters_that_nothing_matches_give_an_empty_page(
    store: JobStore, jobs: JobFactory
) -> None:
    await jobs.waiting()

    assert (await store.find(tenant_id="' OR '1'='1")).jobs == []


@pytest.mark.parametrize("look", [1, 2, 3, 5, 100])
async def test_a_bounded_look_finds_all_that_matches_once_page_after_page(
    store: JobStore, jobs: JobFactory, look: int
) -> None:
    """However rare it is among the rest, and whether or not it holds a lease."""
    made = [
        *[await jobs.finished(BURIED), await jobs.running(), await jobs.waiting()],
        *[await jobs.waiting(use_case="label") for _ in range(4)],
        *[await jobs.leased(), await jobs.finished(BURIED), await jobs.waiting()],
    ]
    dead = [made[8], made[0]]
    mail = [made[at] for at in (9, 8, 7, 2, 1, 0)]
    for wanted, filters in ((dead, {"status": JobStatus.DEAD}), (mail, {"use_case": "mail"})):
        seen: list[UUID] = []
        page = Page([], None)
        most = len(made) // look + len(wanted) // 2 + 1
        for _ in range(most):
            page = await store.find(limit=2, look=look, before=page.next_cursor, **filters)
            seen += [job.id for job in page.jobs]
            if page.next_cursor is None:
                break
            assert page.looked_through == (0 if len(page.jobs) == 2 else look)

        assert seen == [(await jobs.row(job)).id for job in wanted]
        assert (page.next_cursor, page.looked_through) == (None, 0)


# Cancel


async def test_a_waiting_job_is_cancelled_at_once(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.waiting()
    clock.advance(1)

    row = await store.cancel(job.id)

    assert row is not None
    assert (row.status, row.due, row.finished_at) == (JobStatus.CANCELLED, False, clock.now())
    assert row.cancel_requested_at == clock.now()


async def test_a_scheduled_job_is_cancelled_at_once(store: JobStore, jobs: JobFactory) -> None:
    job = await jobs.waiting(run_at=MIDNIGHT + timedelta(days=1))

    row = await store.cancel(job.id)

    assert row is not None
    assert row.status is JobStatus.CANCELLED


async def test_a_leased_job_is_cancelled_and_its_message_starts_nothing(
    store: JobStore, jobs: JobFactory
) -> None:
    leased = await jobs.leased()

    row = await store.cancel(leased.job_id)

    assert row is not None
    assert (row.status, row.leased_at, row.lease_expires_at) == (JobStatus.CANCELLED, None, None)
    assert await store.start([ticket(leased)], worker="w", lease_seconds=5) == []


async def test_a_job_of_another_tenant_is_neither_cancelled_nor_requeued(
    store: JobStore, jobs: JobFactory
) -> None:
    waiting = await jobs.waiting(tenant_id="acme")
    finished = await jobs.finished(tenant_id="acme")
    before = await jobs.row(waiting), await jobs.row(finished)

    assert await store.cancel(waiting.id, tenant_id="bolt") is None
    assert await store.requeue(finished.id, more_attempts=1, tenant_id="bolt") is None

    assert (await jobs.row(waiting), await jobs.row(finished)) == before


async def test_a_leased_probe_is_cancelled_like_any_job(store: JobStore, jobs: JobFactory) -> None:
    leased = await jobs.leased_probe()

    row = await store.cancel(leased.job_id)

    assert row is not None
    assert row.status is JobStatus.CANCELLED


async def test_a_running_probe_that_is_asked_to_end_stays_a_probe(
    store: JobStore, jobs: JobFactory, db: psycopg.Connection[Any]
) -> None:
    await jobs.start(await jobs.leased_probe())

    await store.cancel(jobs.made[0])

    assert db.execute("SELECT status, probe FROM jobs").fetchone() == ("running", True)


async def test_a_running_job_is_asked_and_keeps_running(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    clock.advance(1)
    await store.cancel(job.id)
    clock.advance(1)

    row = await store.cancel(job.id)

    assert row is not None
    assert (row.status, row.finished_at) == (JobStatus.RUNNING, None)
    assert row.cancel_requested_at == MIDNIGHT + timedelta(seconds=1)
    assert row.lease_expires_at == job.lease_expires_at


@pytest.mark.parametrize("outcome", [SUCCEEDED, BURIED, CANCELLED])
async def test_a_finished_job_cannot_be_cancelled(
    store: JobStore, jobs: JobFactory, outcome: Outcome
) -> None:
    job = await jobs.finished(outcome)
    before = await jobs.row(job)

    assert await store.cancel(job.id) is None
    assert await jobs.row(job) == before


# Requeue


@pytest.mark.parametrize("outcome", [SUCCEEDED, BURIED, CANCELLED])
async def test_a_finished_job_waits_again_with_fresh_attempts_and_deadline(
    store: JobStore, jobs: JobFactory, clock: SettableClock, outcome: Outcome
) -> None:
    job = await jobs.finished(outcome, max_attempts=1)
    clock.advance(500)

    row = await store.requeue(job.id, more_attempts=2)

    assert row is not None
    assert (row.status, row.due, row.finished_at) == (JobStatus.PENDING, True, None)
    assert (row.attempts, row.max_attempts) == (1, 3)
    assert (row.run_at, row.deadline_at) == (clock.now(), clock.now() + timedelta(seconds=60))
    assert (row.result, row.cancel_requested_at, row.first_run_at) == (None, None, None)


async def test_a_requeued_job_can_run_to_its_end(store: JobStore, jobs: JobFactory) -> None:
    job = await jobs.running(max_attempts=1)
    await store.cancel(job.id)
    await store.finish([(job, CANCELLED)])
    await store.requeue(job.id, more_attempts=1)

    again = await jobs.start(await jobs.lease_again(job.id))
    await store.finish([(again, SUCCEEDED)])

    assert (again.lease_seq, again.attempts) == (2, 2)
    assert (await jobs.row(job)).status is JobStatus.SUCCEEDED


async def test_an_unfinished_job_cannot_be_requeued(store: JobStore, jobs: JobFactory) -> None:
    for job_id in (
        (await jobs.waiting()).id,
        (await jobs.leased()).job_id,
        (await jobs.running()).id,
        (await jobs.finished(RETRIED)).id,
    ):
        before = await jobs.row(job_id)

        assert await store.requeue(job_id, more_attempts=1) is None
        assert await jobs.row(job_id) == before


async def test_a_requeue_is_refused_while_a_twin_is_unfinished(
    store: JobStore, jobs: JobFactory
) -> None:
    job = await jobs.finished(dedupe_key="k")
    await jobs.waiting(dedupe_key="k")

    with pytest.raises(MoveRefused, match="dedupe_key") as refusal:
        await store.requeue(job.id, more_attempts=1)

    assert (refusal.value.job_id, refusal.value.move) == (job.id, "requeue")
    assert (await jobs.row(job)).status is JobStatus.SUCCEEDED


async def test_a_requeue_without_attempts_is_refused_before_it_could_stall(
    store: JobStore, jobs: JobFactory
) -> None:
    job = await jobs.finished(BURIED, max_attempts=1)

    with pytest.raises(ValueError, match="more_attempts"):
        await store.requeue(job.id, more_attempts=0)


async def test_an_old_ticket_does_not_open_a_requeued_job(
    store: JobStore, jobs: JobFactory
) -> None:
    job = await jobs.finished(BURIED)
    await store.requeue(job.id, more_attempts=1)

    assert await store.start([ticket(job)], worker="w", lease_seconds=5) == []


async def test_a_row_of_a_plain_insert_is_readable(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    job_id = new_job_id()
    db.execute(
        "INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, "
        "deadline_at, due) VALUES (%s, 't', 'u', 'y', 'q', '{}', '2030-01-01Z', '1 hour', "
        "'2030-01-01 01:00Z', true)",
        [job_id],
    )

    row = await store.get(job_id)

    assert row is not None
    assert (row.delay_tolerance_seconds, row.max_attempts) == (3600.0, 3)


async def test_a_list_shows_jobs_as_they_are_alone(store: JobStore, jobs: JobFactory) -> None:
    job = await jobs.waiting(timeout_seconds=2.5, dedupe_key="k")

    page = await store.find()

    assert list(page.jobs) == [await store.get(job.id)]
