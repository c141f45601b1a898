"""A move changes the job that it names and no other, and waits for no row that is locked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from async_jobs.models import JobStatus, Ticket
from async_jobs.store.jobs import JobStore

from .factories import LEASE_SECONDS, JobFactory, SettableClock
from .test_pairs import (
    MOVES,
    PASS_BY,
    Move,
    Side,
    claim,
    job_in,
    lease,
    look,
    promote,
    prune,
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


NAMED = (renew, lease_chosen, *(move for move in MOVES if move not in PASS_BY))
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
    before = await look(side.conn, one.job_id)
    with db.transaction():
        db.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [one.job_id])

        await move(one)

        assert await look(side.conn, one.job_id) == before
    if move is not lease_chosen:
        assert await look(side.conn, other) != before, "the other one was moved"


async def test_a_release_of_many_tickets_knows_them_apart(side: Side) -> None:
    one, other = await two_in("leased", side)

    released = await side.store.release(
        [Ticket(one.job_id, 1), Ticket(other, 2)], enqueue_failed=False
    )

    assert released == 1
