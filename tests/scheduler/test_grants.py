"""When a scheduler lets workers claim jobs themselves, and when it takes that back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from moving_parts import Events
from store.factories import JobFactory, SettableClock

from async_jobs.config import TenantQuota
from async_jobs.scheduler.dispatch import FEW_BESIDE_CLAIMS, STANDS_BACK_SECONDS
from async_jobs.scheduler.loop import Scheduler
from async_jobs.store.jobs import JobStore
from async_jobs.store.turn import NEW_CLAIM_SECONDS

from .conftest import MakeDispatcher


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


async def grant_of(store: JobStore, use_case: str = "mail") -> int | None:
    async with store.take_turn(use_case) as turn:
        assert turn is not None
        return turn.grant_capacity


async def backlog(jobs: JobFactory, number: int = 5, **fields: Any) -> None:
    for _ in range(number):
        await jobs.waiting(**fields)


async def test_a_backlog_is_granted_to_workers_that_ask(
    store: JobStore, jobs: JobFactory, make_dispatcher: MakeDispatcher
) -> None:
    await backlog(jobs)
    dispatcher = make_dispatcher(capacity=3, uses_sqs=False)

    unasked = await dispatcher.dispatch()
    await store.claims.ask(["mail"])
    seconds = await dispatcher.tick()

    assert not unasked.granted
    assert await grant_of(store) == 3
    assert seconds == STANDS_BACK_SECONDS


async def test_it_is_given_again_as_long_as_jobs_wait_however_full_the_use_case(
    store: JobStore, jobs: JobFactory, make_dispatcher: MakeDispatcher, db: psycopg.Connection[Any]
) -> None:
    await backlog(jobs)
    await store.claims.ask(["mail"])
    dispatcher = make_dispatcher(capacity=3, uses_sqs=False)
    await dispatcher.tick()
    db.execute("UPDATE jobs_grants SET expires_at = now()")

    await dispatcher.tick()

    assert await grant_of(store) == 3


async def test_while_workers_claim_few_are_leased(
    store: JobStore, jobs: JobFactory, make_dispatcher: MakeDispatcher, clock: SettableClock
) -> None:
    """As many as show that jobs wait; all again when nobody has claimed for a second."""
    await backlog(jobs, 60)
    await store.claims.ask(["mail"])
    dispatcher = make_dispatcher(capacity=40, uses_sqs=False)
    async with store.take_turn("mail") as turn:
        assert turn is not None
        await turn.grant(40, seconds=3_600.0)
    claimed = await store.claims.claim(
        ["mail"], ["mail-queue"], slots=5, worker="w", lease_seconds=60.0
    )

    beside = await dispatcher.dispatch()
    clock.advance(NEW_CLAIM_SECONDS)
    after = await dispatcher.dispatch()

    assert claimed is not None
    assert len(claimed.jobs) == 5
    assert (beside.sent, beside.granted) == (FEW_BESIDE_CLAIMS, True)
    assert (after.sent, after.granted) == (40 - 5 - FEW_BESIDE_CLAIMS, True)


async def test_it_is_given_as_long_as_workers_ask_and_taken_back_then(
    store: JobStore, jobs: JobFactory, make_dispatcher: MakeDispatcher, db: psycopg.Connection[Any]
) -> None:
    """Also while nothing waits: what comes next is for those who claim."""
    await backlog(jobs, 1)
    await store.claims.ask(["mail"])
    dispatcher = make_dispatcher(capacity=4, uses_sqs=False)

    await dispatcher.tick()
    seconds = await dispatcher.tick()
    while_they_ask = await grant_of(store)
    db.execute("UPDATE jobs_grants SET asked_at = now() - interval '1 hour'")
    await dispatcher.tick()

    assert (seconds, while_they_ask) == (STANDS_BACK_SECONDS, 4)
    assert await grant_of(store) is None
    assert not dispatcher.stands_back


async def test_workers_are_woken_when_leave_is_new_and_not_each_time_it_is_renewed(
    store: JobStore, jobs: JobFactory, make_dispatcher: MakeDispatcher, db: psycopg.Connection[Any]
) -> None:
    await store.claims.ask(["mail"])
    dispatcher = make_dispatcher(capacity=4, uses_sqs=False)
    db.execute("LISTEN async_jobs_leased")

    await dispatcher.tick()
    new = [hint.payload for hint in db.notifies(timeout=0.2, stop_after=1)]
    await dispatcher.tick()
    db.execute("NOTIFY async_jobs_leased, 'the end'")
    renewed = [hint.payload for hint in db.notifies(timeout=5, stop_after=1)]

    assert new == ["mail"]
    assert renewed == ["the end"]


async def test_while_workers_claim_a_scheduler_leaves_the_hints_to_them(
    store: JobStore,
    jobs: JobFactory,
    make_dispatcher: MakeDispatcher,
    db: psycopg.Connection[Any],
    events: Events,
) -> None:
    await store.claims.ask(["mail"])
    dispatcher = make_dispatcher(capacity=4, uses_sqs=False)
    scheduler = Scheduler(
        store, [dispatcher], interval_seconds=60, retention_seconds=0, bus=events.bus
    )
    woken = scheduler._loops["mail"]._wake

    await dispatcher.tick()
    scheduler.hint("mail")
    while_granted = woken.is_set()
    db.execute("UPDATE jobs_grants SET asked_at = now() - interval '1 hour'")
    await dispatcher.tick()
    scheduler.hint("mail")

    assert (while_granted, woken.is_set()) == (False, True)


@pytest.mark.parametrize(
    "settings",
    [
        {"uses_sqs": True},
        {"quotas": {"acme": 9}},
        {"quotas": {"acme": TenantQuota(rate_per_second=1_000.0)}},
    ],
    ids=["sqs", "a tenant with a most", "a tenant with a rate"],
)
async def test_where_more_than_deadlines_decides_nothing_is_granted(
    store: JobStore, jobs: JobFactory, make_dispatcher: MakeDispatcher, settings: dict[str, Any]
) -> None:
    await backlog(jobs)
    await store.claims.ask(["mail"])

    done = await make_dispatcher(capacity=3, **{"uses_sqs": False, **settings}).dispatch()

    assert (done.sent, done.granted) == (3, False)


async def test_a_late_job_ends_the_grant(
    store: JobStore,
    jobs: JobFactory,
    make_dispatcher: MakeDispatcher,
    clock: SettableClock,
) -> None:
    await backlog(jobs, 9)
    await store.claims.ask(["mail"])
    dispatcher = make_dispatcher(capacity=3, uses_sqs=False)
    before = await dispatcher.dispatch()
    clock.advance(61.0)
    await store.cancel(jobs.made[0])

    after = await dispatcher.dispatch()

    assert (before.granted, after.granted) == (True, False)
    assert await grant_of(store) is None


async def test_a_paused_use_case_is_not_granted_again(
    store: JobStore, jobs: JobFactory, make_dispatcher: MakeDispatcher
) -> None:
    await backlog(jobs)
    await store.claims.ask(["mail"])
    dispatcher = make_dispatcher(capacity=3, uses_sqs=False)
    dispatcher.steer(dispatcher.use_case, {}, paused=True)

    await dispatcher.dispatch()

    assert await grant_of(store) is None
