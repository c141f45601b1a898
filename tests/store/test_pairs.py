"""Every move against every other one, on one row, on two connections.

The first move is made in a transaction that stays open; the second begins and
either waits for the row, or passes by; then the first commits or rolls back.
Whatever happens must be what the moves would have done alone, in one order or the other.
Moves of a batch may pass by a row that is held (`test_guards.py`), and then only the
first has happened; a move that names its job waits for the row and judges it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from async_jobs.core.lifecycle import allowed
from async_jobs.models import JobStatus, Ticket
from async_jobs.store.jobs import JobStore
from async_jobs.store.queries import query

from .factories import (
    LEASE_SECONDS,
    MIDNIGHT,
    RELEASED,
    RETRIED,
    SUCCEEDED,
    JobFactory,
    SettableClock,
    granted,
)

Connection = psycopg.AsyncConnection[Any]


class OnePool:
    """Stands in for a pool; gives one connection, whose transaction the test ends."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        yield self._conn

    async def getconn(self, timeout: float | None = None) -> Connection:
        return self._conn

    async def putconn(self, conn: Connection) -> None:
        pass


@dataclass(frozen=True)
class Side:
    """One of the two connections, and what it knows of the job."""

    store: JobStore
    conn: Connection
    job_id: UUID
    clock: SettableClock

    @property
    def ticket(self) -> Ticket:
        return Ticket(self.job_id, 1)

    async def finish(self, outcome: Any) -> None:
        started = Held(self.job_id, 1)
        await self.store.finish([(started, outcome)])  # type: ignore[list-item] # id and lease_seq


@dataclass(frozen=True)
class Held:
    id: UUID
    lease_seq: int


async def promote(side: Side) -> None:
    await side.store.promote_due(5)


async def lease(side: Side) -> None:
    async with side.store.take_turn("mail") as turn:
        if turn is not None:
            await turn.lease_due(5, lease_seconds=LEASE_SECONDS)


async def claim(side: Side) -> None:
    await side.store.claims.claim(
        ["mail"], ["mail-queue"], slots=5, worker="w", lease_seconds=LEASE_SECONDS
    )


async def release(side: Side) -> None:
    await side.store.release([side.ticket], enqueue_failed=True)


async def start(side: Side) -> None:
    await side.store.start([side.ticket], worker="w", lease_seconds=LEASE_SECONDS)


async def start_leased(side: Side) -> None:
    await side.store.start_leased(["mail-queue"], slots=5, worker="w", lease_seconds=LEASE_SECONDS)


async def extend(side: Side) -> None:
    params = {"ids": [side.job_id], "lease_seqs": [1], "lease_seconds": 500.0}
    await side.conn.execute(query("extend_attempts"), {**params, "now": side.clock.now()})


async def succeed(side: Side) -> None:
    await side.finish(SUCCEEDED)


async def retry(side: Side) -> None:
    await side.finish(RETRIED)


async def give_back(side: Side) -> None:
    await side.finish(RELEASED)


async def rescue(side: Side) -> None:
    await side.store.rescue(5)


async def cancel(side: Side) -> None:
    await side.store.cancel(side.job_id)


async def requeue(side: Side) -> None:
    await side.store.requeue(side.job_id, more_attempts=1)


async def prune(side: Side) -> None:
    await side.store.prune("mail", retention_seconds=-1, most=5)


Move = Callable[[Side], Awaitable[None]]
MOVES: tuple[Move, ...] = (
    *(promote, lease, claim, release, start, start_leased, extend, succeed),
    *(retry, give_back, rescue, cancel, requeue, prune),
)
PASS_BY = (promote, lease, claim, start_leased, rescue, prune)
STATES = ("scheduled", "waiting", "leased", "expired", "running", "lost", "asked", "finished")


async def job_in(state: str, jobs: JobFactory, clock: SettableClock) -> UUID:
    """A job in *state*, whose lease, if it has or had one, has number 1."""
    clock.at = MIDNIGHT
    if state == "scheduled":
        job_id = (await jobs.waiting(run_at=MIDNIGHT + timedelta(seconds=1))).id
    elif state == "waiting":
        job_id = (await jobs.waiting()).id
    elif state in ("leased", "expired"):
        job_id = (await jobs.leased()).job_id
    elif state == "finished":
        job_id = (await jobs.finished()).id
    else:
        job_id = (await jobs.running()).id
    if state == "asked":
        await jobs.store.cancel(job_id)
    clock.advance(LEASE_SECONDS if state in ("expired", "lost") else 5)
    return job_id


Row = dict[str, Any] | None


async def look(conn: Connection, job_id: UUID) -> Row:
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute("SELECT * FROM jobs WHERE id = %s", [job_id])
    row = await cursor.fetchone()
    # The ids differ from run to run; nothing else may.
    return None if row is None else {key: value for key, value in row.items() if key != "id"}


_known: dict[tuple[object, ...], Row] = {}


class Ring:
    """Two connections and the means to play moves on them."""

    def __init__(self, one: Connection, other: Connection) -> None:
        self.clock = SettableClock()
        self.jobs = JobFactory(JobStore(store_pool(other), clock=self.clock))
        self.one, self.other = one, other

    async def prepared(self, state: str) -> tuple[Side, Side]:
        await self.other.execute("DELETE FROM jobs")
        job_id = await job_in(state, self.jobs, self.clock)
        return self._side(self.one, job_id), self._side(self.other, job_id)

    def _side(self, conn: Connection, job_id: UUID) -> Side:
        return Side(JobStore(store_pool(conn), clock=self.clock), conn, job_id, self.clock)

    async def alone(self, state: str, *moves: Move) -> Row:
        """What these moves lead to, one after the other; found out once for all tests."""
        if (state, *moves) not in _known:
            _, side = await self.prepared(state)
            for move in moves:
                await move(side)
            _known[state, *moves] = await look(self.other, side.job_id)
        return _known[state, *moves]

    async def together(self, state: str, first: Move, second: Move, end: str) -> Row:
        """What they lead to when the second begins before the first has ended."""
        one, other = await self.prepared(state)
        await self.one.execute("BEGIN")
        await first(one)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(run(second, other))
            await self._until_waiting_or_done(running)
            await self.one.execute(end.encode())
        return await look(self.other, one.job_id)

    async def _until_waiting_or_done(self, running: asyncio.Task[None]) -> None:
        pid = self.other.info.backend_pid
        while not (await asyncio.wait([running], timeout=0.003))[0]:
            cursor = await self.one.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [pid])
            if await cursor.fetchone() == (True,):
                return


async def run(move: Move, side: Side) -> None:
    await move(side)


def store_pool(conn: Connection) -> AsyncConnectionPool[Any]:
    pool: Any = OnePool(conn)
    return pool  # type: ignore[no-any-return] # stands in for one


@pytest.mark.own_session
@pytest.mark.slow
@pytest.mark.parametrize("first", MOVES, ids=[move.__name__ for move in MOVES])
async def test_two_moves_on_one_row_end_as_in_some_order(database: str, first: Move) -> None:
    """All second moves in one test: a test for each pair spends its time on connecting."""
    async with (
        await psycopg.AsyncConnection.connect(database, autocommit=True) as one,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as other,
    ):
        ring = Ring(one, other)
        await granted(ring.jobs.store, capacity=5)
        for second, state in product(MOVES, STATES):
            await play(ring, state, first, second)


async def play(ring: Ring, state: str, first: Move, second: Move) -> None:
    before, after_first = await ring.alone(state), await ring.alone(state, first)
    if before == after_first:
        return
    after_both = await ring.alone(state, first, second)
    after_second = await ring.alone(state, second)
    pair = f"{first.__name__}, then {second.__name__} on a {state} job"

    committed = await ring.together(state, first, second, "COMMIT")
    rolled_back = await ring.together(state, first, second, "ROLLBACK")

    in_some_order = [after_both, await ring.alone(state, second, first)]
    assert committed in in_some_order or (second in PASS_BY and committed == after_first), pair
    assert rolled_back in ((after_second, before) if second in PASS_BY else (after_second,)), pair
    for row in (committed, rolled_back):
        check_the_fence_and_the_lifecycle(before, row)


def check_the_fence_and_the_lifecycle(before: Row, after: Row) -> None:
    assert before is not None
    if after is None:
        return
    assert after["lease_seq"] >= before["lease_seq"]
    assert 0 <= after["attempts"] <= after["max_attempts"]
    statuses = JobStatus(before["status"]), JobStatus(after["status"])
    assert statuses[0] == statuses[1] or reachable_in_two(*statuses)


def reachable_in_two(before: JobStatus, after: JobStatus) -> bool:
    return allowed(before, after) or any(
        allowed(before, between) and allowed(between, after) for between in JobStatus
    )
