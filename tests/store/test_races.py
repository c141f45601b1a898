"""Races on real parallel connections: twenty of them, all open before the start."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from async_jobs.errors import QuotaExceeded
from async_jobs.models import Enqueued, Job, JobStatus, Leased
from async_jobs.store.jobs import JobStore

from .factories import (
    BURIED,
    LEASE_SECONDS,
    RETRIED_AT_ONCE,
    SUCCEEDED,
    JobFactory,
    SettableClock,
    new_job,
    ticket,
)

T = TypeVar("T")
CAPACITY = 10
BACKLOG = 150


async def all_at_once(times: int, call: Callable[[int], Awaitable[T]]) -> list[T]:
    """*call* with 0, 1, 2, ... at the same time."""

    async def run(number: int) -> T:
        return await call(number)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run(number)) for number in range(times)]
    return [task.result() for task in running]


@pytest.mark.slow
async def test_two_hundred_enqueues_with_one_key_make_one_job(
    wide_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    async def enqueue(_: int) -> Enqueued:
        return (await wide_store.enqueue([new_job(dedupe_key="k")]))[0]

    answers = await all_at_once(200, enqueue)

    assert len({answer.job_id for answer in answers}) == 1
    assert Counter(answer.deduplicated for answer in answers) == {True: 199, False: 1}
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 20])
async def test_a_hundred_repetitions_under_chosen_ids_make_each_job_once(
    wide_store: JobStore, db: psycopg.Connection[Any], size: int
) -> None:
    batch = [new_job(has_chosen_id=True) for _ in range(size)]

    answers = await all_at_once(100, lambda _: wide_store.enqueue(batch))

    for of_one_job in zip(*answers, strict=True):
        assert len({answer.job_id for answer in of_one_job}) == 1
        assert Counter(each.deduplicated for each in of_one_job) == {True: 99, False: 1}
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (size,)


@pytest.mark.slow
async def test_two_hundred_enqueues_against_a_quota_fill_it_exactly(
    wide_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    async def enqueue(number: int) -> bool:
        batch = [new_job(dedupe_key=f"k{number}") if number % 3 else new_job()]
        try:
            await wide_store.enqueue(batch, quotas={"acme": 37}, use_cases=["mail"])
        except QuotaExceeded:
            return False
        return True

    accepted = await all_at_once(200, enqueue)

    assert sum(accepted) == 37
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (37,)


@pytest.mark.slow
async def test_batches_with_the_same_keys_in_opposite_order_do_not_block_each_other(
    wide_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    keys = [f"k{number}" for number in range(20)]

    async def enqueue(number: int) -> int:
        order = keys if number % 2 else keys[::-1]
        tenants = ("acme", "bolt") if number % 3 else ("bolt", "acme")
        batch = [new_job(dedupe_key=key, tenant_id=tenant) for tenant in tenants for key in order]
        stored = await wide_store.enqueue(
            batch, quotas={"acme": 100, "bolt": 100}, use_cases=["mail"]
        )
        return sum(not one.deduplicated for one in stored)

    assert sum(await all_at_once(40, enqueue)) == 40
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (40,)


async def test_eight_starts_of_one_ticket_start_one_attempt(wide_store: JobStore) -> None:
    jobs = JobFactory(wide_store)
    for _ in range(10):
        leased = await jobs.leased()

        async def start(number: int, leased: Leased = leased) -> int:
            return len(
                await wide_store.start([ticket(leased)], worker=f"w{number}", lease_seconds=60)
            )

        assert sum(await all_at_once(8, start)) == 1
        assert (await jobs.row(leased)).attempts == 1


async def test_eight_workers_that_pick_from_the_table_share_the_jobs(wide_store: JobStore) -> None:
    jobs = JobFactory(wide_store)
    await wide_store.enqueue([new_job() for _ in range(40)])
    await jobs.lease(40)

    async def pick(number: int) -> Sequence[Any]:
        picked: list[Any] = []
        while batch := await wide_store.start_leased(
            ["mail-queue"], slots=3, worker=f"w{number}", lease_seconds=60
        ):
            picked += [job.id for job in batch]
        return picked

    picked = [job_id for ids in await all_at_once(8, pick) for job_id in ids]

    assert len(picked) == len(set(picked)) == 40


async def test_overlapping_batches_of_finishes_record_each_attempt_once(
    wide_store: JobStore,
) -> None:
    jobs = JobFactory(wide_store)
    running = [await jobs.running() for _ in range(20)]

    async def finish(number: int) -> list[Any]:
        order = running if number % 2 else running[::-1]
        return list(await wide_store.finish([(job, SUCCEEDED) for job in order]))

    recorded = [job_id for ids in await all_at_once(8, finish) for job_id in ids]

    assert sorted(recorded) == sorted(job.id for job in running)


@pytest.mark.slow
async def test_four_schedulers_never_pass_the_capacity_and_lease_no_job_twice(
    wide_store: JobStore, db: psycopg.Connection[Any]
) -> None:
    """In a turn nobody else leases, so what a turn counts after its lease is the most there is."""
    await wide_store.enqueue([new_job() for _ in range(BACKLOG)])
    leases: Counter[Any] = Counter()
    highest: list[int] = []
    finished = 0

    async def schedule(_: int) -> None:
        while finished < BACKLOG:
            async with wide_store.take_turn("mail") as turn:
                if turn is None:
                    continue
                held = (await turn.count_in_flight()).total
                leased = await turn.lease_due(max(0, CAPACITY - held), lease_seconds=600)
                highest.extend((held, (await turn.count_in_flight()).total))
            leases.update(job.job_id for job in leased)

    async def work(number: int) -> None:
        nonlocal finished
        while finished < BACKLOG:
            started = await wide_store.start_leased(
                ["mail-queue"], slots=3, worker=f"w{number}", lease_seconds=600
            )
            recorded = await wide_store.finish([(job, SUCCEEDED) for job in started])
            finished += len(recorded)

    async def run(number: int) -> None:
        await (schedule(number) if number < 4 else work(number))

    async with asyncio.timeout(60):
        await all_at_once(7, run)

    assert max(highest) == CAPACITY
    assert (len(leases), max(leases.values())) == (BACKLOG, 1)
    assert db.execute(
        "SELECT max(lease_seq), min(attempts), max(attempts) FROM jobs"
    ).fetchone() == (
        1,
        1,
        1,
    )


@pytest.mark.slow
async def test_schedulers_that_choose_do_not_lease_a_job_twice_either(
    wide_store: JobStore,
) -> None:
    await wide_store.enqueue([new_job(tenant_id=f"t{n % 5}") for n in range(60)])

    async def schedule(_: int) -> list[Any]:
        mine: list[Any] = []
        while True:
            async with wide_store.take_turn("mail") as turn:
                if turn is None:
                    continue
                lanes = [(each.flow, False) for each in await turn.find_flows(10)]
                if not lanes:
                    return mine
                found = [job for lane in await turn.find_candidates(lanes, 2) for job in lane]
                leased = await turn.lease_chosen([job.job_id for job in found], lease_seconds=60)
            mine += [job.job_id for job in leased]

    leased = [job_id for ids in await all_at_once(4, schedule) for job_id in ids]

    assert len(leased) == len(set(leased)) == 60


async def test_promotions_at_once_wake_each_job_once(
    wide_pool: AsyncConnectionPool[Any], clock: SettableClock
) -> None:
    store = JobStore(wide_pool, clock=clock)
    await store.enqueue([new_job(run_at=clock.now().replace(year=2031)) for _ in range(50)])
    clock.at = clock.now().replace(year=2032)

    async def promote(_: int) -> int:
        return (await store.promote_due(20))["mail"]

    assert sum(await all_at_once(8, promote)) + (await store.promote_due(50))["mail"] == 50


async def test_rescues_at_once_take_each_job_once(
    wide_pool: AsyncConnectionPool[Any], clock: SettableClock
) -> None:
    store = JobStore(wide_pool, clock=clock)
    jobs = JobFactory(store)
    running = [await jobs.running() for _ in range(10)]
    clock.advance(LEASE_SECONDS)

    async def rescue(_: int) -> list[Any]:
        return [job.job_id for job in await store.rescue(4)]

    rescued = [job_id for ids in await all_at_once(8, rescue) for job_id in ids]
    rescued += [job.job_id for job in await store.rescue(10)]

    assert sorted(rescued) == sorted(job.id for job in running)


@pytest.mark.parametrize("outcome", [SUCCEEDED, RETRIED_AT_ONCE, BURIED])
async def test_a_worker_that_lost_its_lease_cannot_finish_the_job(
    store: JobStore, jobs: JobFactory, clock: SettableClock, outcome: Any
) -> None:
    first = await jobs.running()
    clock.advance(LEASE_SECONDS)
    await store.rescue(10)
    second = await jobs.start(await jobs.lease_again(first.id))

    while_it_runs = await store.finish([(first, outcome)])
    holder = await store.finish([(second, SUCCEEDED)])
    afterwards = await store.finish([(first, outcome)])

    row: Job = await jobs.row(first)
    assert (while_it_runs, holder, afterwards) == (set(), {first.id}, set())
    assert (row.status, row.attempts, row.lease_seq) == (JobStatus.SUCCEEDED, 2, 2)


async def test_a_snooze_does_not_let_a_zombie_of_the_same_attempt_number_in(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    first = await jobs.running(max_attempts=5)
    clock.advance(LEASE_SECONDS)
    await store.rescue(1)
    second = await jobs.start(await jobs.lease_again(first.id))
    await store.finish([(second, RETRIED_AT_ONCE)])
    third = await jobs.start(await jobs.lease_again(first.id))

    assert await store.finish([(first, SUCCEEDED), (second, SUCCEEDED)]) == set()
    assert await store.finish([(third, SUCCEEDED)]) == {first.id}
