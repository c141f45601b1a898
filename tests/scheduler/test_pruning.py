"""Retention by use case and status: what goes, what stays, and that kept jobs are read once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from store.factories import SUCCEEDED, JobFactory, SettableClock

from async_jobs.config import UseCaseConfig
from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import Outcome
from async_jobs.models import JobStatus
from async_jobs.scheduler.pruning import Pruning
from async_jobs.store.jobs import JobStore
from async_jobs.store.queries import query


def pruning_of(store: JobStore, *, overall: float = 0.0, **kept: float) -> Pruning:
    use_case = UseCaseConfig(name="mail", **kept)
    return Pruning(store, use_case, retention_seconds=overall)


ENDINGS = {
    "succeeded": SUCCEEDED,
    "cancelled": Outcome(move=Move.CANCEL, status=JobStatus.CANCELLED),
    "dead": Outcome(move=Move.BURY, status=JobStatus.DEAD),
}


STANDING_STILL = query("prune_by_status", "retention").replace(
    b"WHERE use_case", b"WHERE pg_advisory_xact_lock_shared(1) IS NOT NULL AND use_case", 1
)


async def three(jobs: JobFactory) -> dict[str, UUID]:
    """One finished job of each status."""
    return {status: (await jobs.finished(outcome)).id for status, outcome in ENDINGS.items()}


async def left(store: JobStore, made: dict[str, UUID]) -> set[str]:
    return {status for status, job_id in made.items() if await store.get(job_id) is not None}


@pytest.mark.parametrize(
    ("kept", "stay"),
    [
        ({"retention_seconds": 100.0}, set()),
        ({"retention_seconds": 300.0}, {"succeeded", "cancelled", "dead"}),
        ({"retention_seconds": 100.0, "retention_dead_seconds": 300.0}, {"dead"}),
        ({"retention_seconds": 100.0, "retention_dead_seconds": 0.0}, {"dead"}),
        ({"retention_seconds": 0.0, "retention_dead_seconds": 100.0}, {"succeeded", "cancelled"}),
        ({"retention_seconds": 300.0, "retention_dead_seconds": 100.0}, {"succeeded", "cancelled"}),
        ({"retention_dead_seconds": 300.0}, {"dead"}),
        ({"retention_seconds": 0.0}, {"succeeded", "cancelled", "dead"}),
    ],
)
async def test_each_status_is_kept_as_long_as_is_set(
    store: JobStore,
    jobs: JobFactory,
    clock: SettableClock,
    kept: dict[str, float],
    stay: set[str],
) -> None:
    made = await three(jobs)
    clock.advance(200)

    await pruning_of(store, overall=150.0, **kept).prune(most=100)

    assert await left(store, made) == stay


async def test_kept_jobs_are_read_once_and_batches_are_small(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    for _ in range(3):
        await three(jobs)
    clock.advance(200)
    one = pruning_of(store, retention_seconds=100.0, retention_dead_seconds=0.0)

    passes = [await one.prune(most=4) for _ in range(4)]

    assert sum(each.jobs for each in passes) == 6
    assert [each.cut for each in passes] == [True, True, False, False]
    assert all(each.jobs <= 4 for each in passes)


async def test_what_was_too_young_at_the_last_look_is_found_at_the_next(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    one = pruning_of(store, retention_seconds=100.0, retention_dead_seconds=0.0)
    await jobs.finished()
    clock.advance(50)

    passes = []
    for _ in range(2):
        passes.append((await one.prune(most=10)).jobs)
        clock.advance(60)

    assert passes == [0, 1]


async def test_the_retention_of_a_use_case_is_its_own(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    other = await jobs.finished(use_case="label")
    clock.advance(200)

    pruned = await pruning_of(store, retention_seconds=100.0, retention_dead_seconds=0.0).prune(
        most=10
    )

    assert pruned.jobs == 0
    assert await store.get(other.id) is not None


@pytest.mark.own_session  # looks for it by its number
@pytest.mark.parametrize(("outcome", "after_seconds"), [(SUCCEEDED, 150.0), (ENDINGS["dead"], 0.0)])
async def test_a_job_that_ran_again_after_it_was_seen_is_judged_anew(
    store: JobStore, jobs: JobFactory, clock: SettableClock, database: str,
    outcome: Outcome, after_seconds: float,
) -> None:  # fmt: skip
    """The statement stands still between what it saw and what it deletes."""
    job = await jobs.finished()
    asked = {
        "use_case": "mail",
        "statuses": ["succeeded"],
        "retention_seconds": 100.0,
        "after": None,
        "after_id": None,
        "most": 9,
        "now": clock.at + timedelta(seconds=200),
    }
    async with (
        await psycopg.AsyncConnection.connect(database) as holder,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as pruner,
    ):
        await holder.execute("SELECT pg_advisory_xact_lock(1)")
        pruning = asyncio.create_task(pruner.execute(STANDING_STILL, asked))
        while not await is_waiting(holder, pruner):
            assert not pruning.done()
        clock.advance(after_seconds)
        await store.requeue(job.id, more_attempts=1)
        again = await jobs.start(await jobs.lease_again(job.id))
        await store.finish([(again, outcome)])
        await holder.commit()
        deleted, seen, *_ = await (await pruning).fetchone() or ()

    assert (deleted, seen) == (0, 1)
    assert await store.get(job.id) is not None


async def is_waiting(
    holder: psycopg.AsyncConnection[tuple[Any, ...]],
    pruner: psycopg.AsyncConnection[tuple[Any, ...]],
) -> bool:
    cursor = await holder.execute(
        "SELECT cardinality(pg_blocking_pids(%s)) > 0", [pruner.info.backend_pid]
    )
    return await cursor.fetchone() == (True,)


async def test_a_job_that_was_locked_is_found_when_the_search_begins_anew(
    store: JobStore,
    jobs: JobFactory,
    clock: SettableClock,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = pruning_of(store, retention_seconds=100.0, retention_dead_seconds=0.0)
    job = await jobs.finished()
    clock.advance(200)
    with psycopg.connect(database) as conn:
        conn.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [job.id])
        assert (await one.prune(most=10)).jobs == 0

    assert (await one.prune(most=10)).jobs == 0
    monkeypatch.setattr(one, "_begin_anew_at", 0.0)
    assert (await one.prune(most=10)).jobs == 1
