"""Single enqueues at the same time share commits, and what each was promised stays as it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from moving_parts import until
from psycopg_pool import AsyncConnectionPool

from async_jobs.errors import DedupeConflict, JobIdTaken, StoreUnavailable
from async_jobs.models import AcceptedJob, Enqueued, new_job_id
from async_jobs.store import convoy, enqueue
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.trace_context import caller

from .factories import new_job

Pool = AsyncConnectionPool[Any]
Db = psycopg.Connection[Any]


async def store_at_once(store: JobStore, jobs: list[AcceptedJob]) -> list[Any]:
    """What each call answers or raises; all are made before the first can go on."""
    calls = [store.enqueue([job]) for job in jobs]
    return [
        answer if isinstance(answer, BaseException) else answer[0]
        for answer in await asyncio.gather(*calls, return_exceptions=True)
    ]


def commits(db: Db) -> int:
    return int(db.execute("SELECT count(DISTINCT xmin::text) FROM jobs").fetchone()[0])  # type: ignore[index] # one row


def ids_stored(db: Db) -> set[UUID]:
    return {row[0] for row in db.execute("SELECT id FROM jobs").fetchall()}


def statements_under_way(store: JobStore) -> list[object]:
    convoys = convoy._convoys.get(store._door.pool, {})
    return [ride for each in convoys.values() for ride in each._under_way]


@pytest.fixture
def refused_tenant(database: str) -> Iterator[str]:
    """The database refuses what this tenant enqueues, for a reason the library cannot know."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("""
            CREATE FUNCTION refuse_mallory() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF NEW.tenant_id = 'mallory' THEN RAISE EXCEPTION 'not mallory'; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER refuse_mallory BEFORE INSERT ON jobs
                FOR EACH ROW EXECUTE FUNCTION refuse_mallory()
        """)
        yield "mallory"
        conn.execute("DROP FUNCTION refuse_mallory CASCADE")


@pytest.mark.parametrize("chosen", [False, True], ids=["plain", "with chosen ids"])
async def test_jobs_at_the_same_time_take_two_commits(
    live_store: JobStore, db: Db, chosen: bool
) -> None:
    jobs = [new_job(tenant_id=f"t{n}", has_chosen_id=chosen, priority=n) for n in range(30)]

    assert await store_at_once(live_store, jobs) == [Enqueued(job.id) for job in jobs]
    assert commits(db) == 2
    rows = db.execute("SELECT id, tenant_id, priority FROM jobs").fetchall()
    assert set(rows) == {(job.id, job.tenant_id, job.priority) for job in jobs}


async def test_stores_on_one_pool_share(pool: Pool, db: Db) -> None:
    await asyncio.gather(*[JobStore(pool).enqueue([new_job()]) for _ in range(20)])

    assert commits(db) == 2


async def test_whoever_is_answered_is_committed(live_store: JobStore, db: Db) -> None:
    async def enqueue_and_look() -> bool:
        job = new_job()
        await live_store.enqueue([job])
        return db.execute("SELECT FROM jobs WHERE id = %s", [job.id]).fetchone() is not None

    assert all(await asyncio.gather(*[enqueue_and_look() for _ in range(20)]))


async def test_one_that_is_refused_leaves_its_neighbours_in(
    live_store: JobStore, db: Db, refused_tenant: str
) -> None:
    jobs = [new_job(tenant_id=refused_tenant if n in (3, 7) else "acme") for n in range(10)]

    answers = await store_at_once(live_store, jobs)

    assert [isinstance(one, psycopg.errors.RaiseException) for one in answers] == [
        job.tenant_id == refused_tenant for job in jobs
    ]
    assert ids_stored(db) == {job.id for job in jobs if job.tenant_id == "acme"}


async def test_twins_at_the_same_time_become_one_job(live_store: JobStore, db: Db) -> None:
    jobs = [new_job(dedupe_key="k" if n % 2 else f"own {n}") for n in range(12)]

    answers = await store_at_once(live_store, jobs)

    assert {one.job_id for one in answers[1::2]} == {jobs[1].id}
    assert [one.deduplicated for one in answers[1::2]] == [False, *[True] * 5]
    assert not any(one.deduplicated for one in answers[::2])
    assert len(ids_stored(db)) == 7


async def test_other_requests_under_one_key_or_id_are_refused_alone(
    live_store: JobStore, db: Db
) -> None:
    first, keyed = new_job(has_chosen_id=True), new_job(dedupe_key="k")
    jobs = [
        new_job(has_chosen_id=True),  # goes first; the others go together
        first,
        new_job(id=first.id, has_chosen_id=True, type="other"),
        keyed,
        new_job(dedupe_key="k", type="other"),
    ]

    other, good, taken, kept, conflict = await store_at_once(live_store, jobs)

    assert [other, good, kept] == [Enqueued(jobs[n].id) for n in (0, 1, 3)]
    assert isinstance(taken, JobIdTaken)
    assert isinstance(conflict, DedupeConflict)
    assert ids_stored(db) == {first.id, keyed.id, jobs[0].id}


async def test_a_strangers_open_transaction_holds_up_only_the_twin(
    live_store: JobStore, pool: Pool, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "TWIN_PATIENCE", "20ms")
    held = new_job(dedupe_key="held")
    others = [new_job(has_chosen_id=True) for _ in range(3)]
    async with pool.connection() as conn, conn.transaction():
        await live_store.enqueue([held], connection=conn)
        calls = [
            asyncio.ensure_future(live_store.enqueue([job]))
            for job in (others[0], new_job(dedupe_key="held"), *others[1:])
        ]
        twin = calls.pop(1)
        await asyncio.gather(*calls)
        assert ids_stored(db) == {job.id for job in others}
        assert not twin.done()

    assert await twin == [Enqueued(held.id, deduplicated=True)]


async def test_a_shared_statement_leaves_no_time_out_behind(
    live_store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "TWIN_PATIENCE", "20ms")
    await store_at_once(live_store, [new_job(has_chosen_id=True) for _ in range(9)])

    async with live_store._door.pool.connection() as conn:
        found = await (await conn.execute("SHOW lock_timeout")).fetchone()
    assert found == ("0",)


async def test_when_the_database_goes_away_everybody_is_told(
    live_store: JobStore, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions end under the statement: each is told by an error of its own, and none is stored."""
    slow = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    slow += " PERFORM pg_sleep(30); RETURN NEW; END $$"
    db.execute(slow.encode())
    db.execute("CREATE TRIGGER wait BEFORE INSERT ON jobs EXECUTE FUNCTION wait()")
    sleeping = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    try:
        jobs = [new_job() for _ in range(8)]
        calls = asyncio.create_task(store_at_once(live_store, jobs))
        for _ in range(2):
            await until(lambda: db.execute(f"SELECT {sleeping}".encode()).fetchall())
            db.execute(f"SELECT pg_terminate_backend(pid, 5000) {sleeping}".encode())
        answers = await calls
    finally:
        db.execute("DROP FUNCTION wait CASCADE")

    assert {type(one) for one in answers} == {StoreUnavailable}
    assert len({id(one) for one in answers}) == len(answers)
    assert ids_stored(db) == set()


async def test_each_row_keeps_the_trace_of_its_caller(live_store: JobStore, db: Db) -> None:
    async def enqueue_for(number: int) -> tuple[UUID, str]:
        parent = f"00-{'a' * 31}{number}-{'b' * 15}{number}-01"
        caller.set({"traceparent": parent})
        job = new_job()
        await live_store.enqueue([job])
        return job.id, parent

    expected = dict(await asyncio.gather(*[enqueue_for(number) for number in range(1, 7)]))

    rows = db.execute("SELECT id, trace_context ->> 'traceparent' FROM jobs").fetchall()
    assert dict(rows) == expected


@pytest.mark.own_session
async def test_the_hints_of_all_go_along(live_store: JobStore, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute("LISTEN async_jobs_due")
        topics = [f"case_{number}" for number in range(6)]
        calls = [live_store.enqueue([new_job()], hints=[topic]) for topic in [*topics, topics[1]]]
        await asyncio.gather(*calls)
        heard = [one.payload for one in listener.notifies(timeout=5, stop_after=6)]

    assert sorted(heard) == topics


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_at_random_everybody_is_told_the_truth(
    live_store: JobStore, db: Db, refused_tenant: str, seed: int
) -> None:
    """Callers of every kind, some cancelled; what each was told is what the table says."""
    rng = random.Random(seed)
    chosen = [new_job_id() for _ in range(10)]

    def some_job() -> AcceptedJob:
        tenant = refused_tenant if rng.random() < 0.05 else rng.choice(["acme", "bolt"])
        match rng.choice(["plain", "plain", "key", "id"]):
            case "key":
                return new_job(tenant_id=tenant, dedupe_key=f"k{rng.randrange(10)}")
            case "id":
                return new_job(id=rng.choice(chosen), has_chosen_id=True, tenant_id="acme")
        return new_job(tenant_id=tenant)

    async def call_often() -> list[tuple[AcceptedJob, Any]]:
        told = []
        for _ in range(12):
            job = some_job()
            call = asyncio.ensure_future(live_store.enqueue([job]))
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() * 0.004)
                call.cancel()
            (answer,) = await asyncio.gather(call, return_exceptions=True)
            told.append((job, answer))
        return told

    each_told = await asyncio.gather(*[call_often() for _ in range(12)])
    # Who was cancelled did not wait for its statement.
    await until(lambda: not statements_under_way(live_store))
    told = [pair for pairs in each_told for pair in pairs]

    stored = ids_stored(db)
    for job, answer in told:
        if isinstance(answer, list):
            assert answer[0].job_id in stored
            assert (answer[0].job_id == job.id) or job.dedupe_key is not None
        elif isinstance(answer, psycopg.errors.RaiseException):
            assert job.tenant_id == refused_tenant
            assert job.id not in stored
        else:
            assert isinstance(answer, asyncio.CancelledError)
    first_told = [answer[0] for _, answer in told if isinstance(answer, list)]
    assert len({one.job_id for one in first_told if not one.deduplicated}) == sum(
        not one.deduplicated for one in first_told
    )
    assert stored <= {job.id for job, _ in told}
