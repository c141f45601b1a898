"""A claim is lease and start in one, by a scheduler's leave, in a turn of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from async_jobs.core.claims import Claimed
from async_jobs.models import JobStatus
from async_jobs.store.jobs import JobStore

from .factories import LEASE_SECONDS, SUCCEEDED, JobFactory, SettableClock, granted, new_job

CAPACITY = 5
BACKLOG = 60


async def claim(
    store: JobStore, *use_cases: str, slots: int = 10, worker: str = "w"
) -> Claimed | None:
    return await store.claims.claim(
        use_cases or ("mail",),
        ["mail-queue"],
        slots=slots,
        worker=worker,
        lease_seconds=LEASE_SECONDS,
    )


def ids(claimed: Claimed | None) -> list[Any]:
    return [] if claimed is None else [job.id for job in claimed.jobs]


async def test_it_leases_and_starts_the_most_urgent_jobs(store: JobStore, jobs: JobFactory) -> None:
    patient = await jobs.waiting(delay_tolerance_seconds=90.0)
    urgent = await jobs.waiting(delay_tolerance_seconds=30.0)
    await granted(store, capacity=CAPACITY)

    claimed = await claim(store, slots=1)

    row = await jobs.row(urgent)
    assert ids(claimed) == [urgent.id]
    assert (row.status, row.lease_seq, row.attempts, row.worker) == (JobStatus.RUNNING, 1, 1, "w")
    assert row.leased_at == row.started_at == row.first_started_at
    assert (await jobs.row(patient)).lease_seq == 0


async def test_what_was_claimed_is_recorded_like_any_attempt(
    store: JobStore, jobs: JobFactory
) -> None:
    job = await jobs.waiting()
    await granted(store, capacity=CAPACITY)
    claimed = await claim(store)
    assert claimed is not None

    recorded = await store.finish([(claimed.jobs[0], SUCCEEDED)])

    assert recorded == {job.id}
    assert (await jobs.row(job)).status is JobStatus.SUCCEEDED


async def test_without_leave_nothing_is_claimed(store: JobStore, jobs: JobFactory) -> None:
    job = await jobs.waiting()
    await store.claims.ask(["mail"])

    asked = await claim(store)
    await granted(store, capacity=CAPACITY)
    async with store.take_turn("mail") as turn:
        assert turn is not None
        await turn.grant(0, seconds=0.0)
    taken_back = await claim(store)

    assert (asked, taken_back) == (None, None)
    assert (await jobs.row(job)).lease_seq == 0


async def test_a_late_job_is_left_to_the_scheduler(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.waiting(delay_tolerance_seconds=1.0)
    await jobs.waiting(delay_tolerance_seconds=3_600.0)
    await granted(store, capacity=CAPACITY)
    clock.advance(2.0)

    assert await claim(store) == Claimed([])


async def test_it_keeps_to_the_capacity_that_was_granted(store: JobStore, jobs: JobFactory) -> None:
    await jobs.leased()
    await jobs.running()
    for _ in range(9):
        await jobs.waiting()
    await granted(store, capacity=CAPACITY)

    first, second = await claim(store), await claim(store)

    assert first is not None
    assert (len(first.jobs), first.in_flight, first.capacity) == (CAPACITY - 2, CAPACITY, CAPACITY)
    assert second == Claimed([])


async def test_a_use_case_without_leave_that_comes_first_holds_the_others_back(
    store: JobStore, jobs: JobFactory
) -> None:
    await jobs.waiting(use_case="label", delay_tolerance_seconds=5.0)
    await jobs.waiting()
    await granted(store, capacity=CAPACITY)

    behind = await claim(store, "mail", "label")
    alone = await claim(store, "mail")

    assert behind == Claimed([])
    assert len(ids(alone)) == 1


async def test_of_two_with_leave_the_more_urgent_goes_first(
    store: JobStore, jobs: JobFactory
) -> None:
    await jobs.waiting(delay_tolerance_seconds=50.0)
    label = await jobs.waiting(use_case="label", delay_tolerance_seconds=5.0)
    await granted(store, capacity=CAPACITY)
    await granted(store, "label", capacity=CAPACITY)

    claimed = await claim(store, "mail", "label")

    assert claimed is not None
    assert (claimed.use_case, ids(claimed)) == ("label", [label.id])


async def test_a_late_job_that_waits_no_more_holds_nothing_back(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.finished(delay_tolerance_seconds=1.0)
    await jobs.running(delay_tolerance_seconds=1.0)
    clock.advance(2.0)
    waiting = await jobs.waiting()
    await granted(store, capacity=CAPACITY)

    assert ids(await claim(store)) == [waiting.id]


async def test_leave_for_another_use_case_is_none(store: JobStore, jobs: JobFactory) -> None:
    await jobs.waiting()
    await granted(store, "label", capacity=CAPACITY)

    assert await claim(store) is None


async def test_each_use_case_has_a_capacity_and_jobs_in_flight_of_its_own(
    store: JobStore, jobs: JobFactory
) -> None:
    for _ in range(4):
        await jobs.running(use_case="label")
        await jobs.waiting()
    await granted(store, "label", capacity=20)
    await granted(store, capacity=2)

    claimed = await claim(store, "mail", "label")

    assert claimed is not None
    assert (len(claimed.jobs), claimed.in_flight, claimed.capacity) == (2, 2, 2)
    assert {job.use_case for job in claimed.jobs} == {"mail"}


async def test_it_waits_for_nobody_who_has_the_turn(store: JobStore, jobs: JobFactory) -> None:
    await jobs.waiting()
    await granted(store, capacity=CAPACITY)

    async with store.take_turn("mail"):
        meanwhile = await claim(store)

    assert meanwhile == Claimed([])


async def test_jobs_of_another_queue_are_left(store: JobStore, jobs: JobFactory) -> None:
    foreign = await jobs.waiting(queue="elsewhere", delay_tolerance_seconds=5.0)
    own = await jobs.waiting()
    await granted(store, capacity=CAPACITY)

    claimed = await claim(store)

    assert ids(claimed) == [own.id]
    assert (await jobs.row(foreign)).lease_seq == 0


async def test_a_job_without_an_attempt_left_does_not_keep_the_others_from_being_claimed(
    store: JobStore, jobs: JobFactory, db: psycopg.Connection[Any]
) -> None:
    spent, own = await jobs.waiting(), await jobs.waiting()
    db.execute("UPDATE jobs SET attempts = max_attempts WHERE id = %s", [spent.id])
    await granted(store, capacity=CAPACITY)

    assert ids(await claim(store)) == [own.id]


async def test_asking_counts_for_a_while_and_is_written_only_now_and_then(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    await store.claims.ask(["mail"])
    first = db.execute("SELECT xmin::text FROM jobs_grants").fetchone()
    await store.claims.ask(["mail"])
    again = db.execute("SELECT xmin::text FROM jobs_grants").fetchone()
    db.execute("UPDATE jobs_grants SET asked_at = asked_at - interval '1 minute'")
    async with store.take_turn("mail") as turn:
        assert turn is not None
        long_ago = turn.asked
    await store.claims.ask(["mail"])
    async with store.take_turn("mail") as turn:
        assert turn is not None
        now = turn.asked

    assert first == again
    assert (long_ago, now) == (False, True)


@pytest.mark.slow
async def test_workers_that_claim_beside_schedulers_never_pass_the_capacity(
    wide_store: JobStore, wide_pool: AsyncConnectionPool[Any], db: psycopg.Connection[Any]
) -> None:
    await wide_store.enqueue([new_job(delay_tolerance_seconds=3_600.0) for _ in range(BACKLOG)])
    await granted(wide_store, capacity=CAPACITY)
    highest: list[int] = []
    claims: Counter[Any] = Counter()
    finished = 0

    async def count() -> None:
        async with wide_pool.connection() as conn:
            held = await conn.execute("SELECT count(*) FROM jobs WHERE leased_at IS NOT NULL")
            highest.extend(await held.fetchone() or ())

    async def schedule() -> None:
        while finished < BACKLOG:
            async with wide_store.take_turn("mail") as turn:
                if turn is not None:
                    held = (await turn.count_in_flight()).total
                    await turn.lease_due(min(1, max(0, CAPACITY - held)), lease_seconds=600)
            await count()
            await asyncio.sleep(0.02)  # time for claims

    async def work(name: str) -> None:
        nonlocal finished
        while finished < BACKLOG:
            claimed = await claim(wide_store, slots=3, worker=name)
            assert claimed is not None
            await count()
            claims.update(ids(claimed))
            picked = await wide_store.start_leased(
                ["mail-queue"], slots=3, worker=name, lease_seconds=600
            )
            ended = [(job, SUCCEEDED) for job in (*claimed.jobs, *picked)]
            recorded = await wide_store.finish(ended)
            finished += len(recorded)

    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(work(f"w{number}"))
        for _ in range(2):
            group.create_task(schedule())

    assert 0 < max(highest) <= CAPACITY
    assert max(claims.values()) == 1
    assert db.execute("SELECT max(lease_seq), max(attempts), count(*) FROM jobs").fetchone() == (
        1,
        1,
        BACKLOG,
    )
