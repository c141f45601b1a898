"""A move changes the job that it names and no other, and waits for no row that is locked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from async_jobs.core.filters import Verb
from async_jobs.models import JobStatus, Ticket
from async_jobs.store.jobs import JobStore

from .factories import BURIED, LEASE_SECONDS, JobFactory, SettableClock, granted
from .test_pairs import (
    MOVES,
    PASS_BY,
    Move,
    Ring,
    Side,
    cancel,
    claim,
    job_in,
    lease,
    look,
    promote,
    prune,
    requeue,
    rescue,
    start_leased,
    store_pool,
)

pytestmark = pytest.mark.own_session  # with a time-out of its own


async def renew(side: Side) -> None:
    await side.store.renew([side.ticket], lease_seconds=500, most_seconds=900)


async def lease_chosen(side: Side) -> None:
    async with side.store.take_turn("mail") as turn:
        assert turn is not None
        await turn.lease_chosen([side.job_id], lease_seconds=LEASE_SECONDS)


async def end_late(side: Side) -> None:
    side.clock.advance(3600)
    async with side.store.take_turn("mail") as turn:
        assert turn is not None
        await turn.end_late(JobStatus.DEAD, most=5)


async def cancel_matching(side: Side) -> None:
    await side.store.matching.move("cancel", [side.job_id], status=None, more_attempts=1)


async def requeue_matching(side: Side) -> None:
    await side.store.matching.move("requeue", [side.job_id], status=None, more_attempts=1)


async def cancel_matching_later(side: Side) -> None:
    side.clock.advance(9)
    await cancel_matching(side)


async def run_again_and_die(side: Side) -> None:
    await requeue(side)
    await lease(side)
    ticket = Ticket(side.job_id, 2)
    (job,) = await side.store.start([ticket], worker="w", lease_seconds=LEASE_SECONDS)
    await side.store.finish([(job, BURIED)])


async def requeue_succeeded(side: Side) -> None:
    await side.store.matching.move("requeue", [side.job_id], status="succeeded", more_attempts=1)


ON_MATCHING = (cancel_matching, requeue_matching)
NAMED = (renew, lease_chosen, *ON_MATCHING, *(move for move in MOVES if move not in PASS_BY))
STATES = ("waiting", "leased", "running", "asked", "finished")
SKIPPING = {
    promote: "scheduled",
    lease: "waiting",
    lease_chosen: "waiting",
    claim: "waiting",
    end_late: "waiting",
    start_leased: "leased",
    rescue: "lost",
    prune: "finished",
}


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    """A connection on which a statement that waits for a row fails at once."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("SET lock_timeout = '200ms'")
        yield conn


@pytest.fixture
def side(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> Side:
    clock = SettableClock()
    return Side(JobStore(store_pool(conn), clock=clock), conn, UUID(int=0), clock)


async def two_in(state: str, side: Side) -> tuple[Side, UUID]:
    """Two jobs in *state* under the same lease_seq: one to move, and a bystander."""
    jobs = JobFactory(side.store)
    job_id = await job_in(state, jobs, side.clock)
    bystander = await job_in(state, jobs, side.clock)
    return Side(side.store, side.conn, job_id, side.clock), bystander


@pytest.mark.parametrize("state", STATES)
async def test_a_move_changes_only_the_job_that_it_names(side: Side, state: str) -> None:
    for move in NAMED:
        await side.conn.execute("DELETE FROM jobs")
        one, bystander = await two_in(state, side)
        before = await look(side.conn, bystander)

        await move(one)

        assert await look(side.conn, bystander) == before, move.__name__


@pytest.mark.parametrize("move", SKIPPING, ids=[move.__name__ for move in SKIPPING])
async def test_a_move_of_a_batch_passes_by_a_row_that_somebody_holds(
    side: Side, db: psycopg.Connection[tuple[object, ...]], move: Move
) -> None:
    one, other = await two_in(SKIPPING[move], side)
    if move is promote:
        side.clock.advance(60)
    if move is claim:
        await granted(side.store, capacity=5)
    before = await look(side.conn, one.job_id)
    with db.transaction():
        db.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [one.job_id])

        await move(one)

        assert await look(side.conn, one.job_id) == before
    if move is not lease_chosen:
        assert await look(side.conn, other) != before, "the other one was moved"


@pytest.mark.parametrize(
    ("verb", "kept", "moved"),
    [("cancel", "finished", "running"), ("requeue", "running", "finished")],
)
async def test_a_move_on_all_that_matches_waits_for_no_row_that_it_would_not_take(
    side: Side, db: psycopg.Connection[tuple[object, ...]], verb: Verb, kept: str, moved: str
) -> None:
    ids = [await job_in(state, JobFactory(side.store), side.clock) for state in (kept, moved)]
    with db.transaction():
        db.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [ids[0]])

        taken = await side.store.matching.move(verb, ids, status=None, more_attempts=1)

    assert [job.job_id for job in taken] == ids[1:]


@pytest.mark.parametrize(
    ("state", "first", "second"),
    [
        ("running", cancel, cancel_matching_later),
        ("finished", run_again_and_die, requeue_succeeded),
    ],
)
async def test_a_move_on_all_that_matches_judges_anew_what_it_waited_for(
    database: str, state: str, first: Move, second: Move
) -> None:
    async with (
        await psycopg.AsyncConnection.connect(database, autocommit=True) as one,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as other,
    ):
        ring = Ring(one, other)

        row = await ring.together(state, first, second, "COMMIT")

        assert row == await ring.alone(state, first)


async def test_a_release_of_many_tickets_knows_them_apart(side: Side) -> None:
    one, other = await two_in("leased", side)

    released = await side.store.release(
        [Ticket(one.job_id, 1), Ticket(other, 2)], enqueue_failed=False
    )

    assert released == 1
