"""The one door to PostgreSQL: borrows a connection, runs a statement, bounds the wait.

Every statement goes through here, so this is where six rules live:

    one commit    a single statement runs in autocommit: no BEGIN, no COMMIT, one round trip;
                  the connection gets its own setting back, for pools are shared with the user
    fresh eyes    a transaction of ours is READ COMMITTED whatever the server's default: a count
                  that follows a lock must see what the lock's last holder committed
    bounded       every call ends within the time-out, plus LET_GO_SECONDS where the server does not
                  answer the driver's cancel either: the connection is hung up on
    whole         a connection goes back to the pool, whoever is cancelled at that moment
    clean         a connection that says the server is read-only (25006), going away (57P0x), out
                  of reach (08xxx) or of resources (53xxx), or that it ended our session after too
                  long a pause (25P03), is closed, so that the pool cannot hand it out again
    translated    what is the database's trouble becomes StoreUnavailable, with its cause; what is
                  a fault of ours (a constraint, a syntax error) stays as it is
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.rows import AsyncRowFactory
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from async_jobs.errors import StoreUnavailable
from async_jobs.store.pace import of_this_process

Row = TypeVar("Row")
Connection = psycopg.AsyncConnection[Any]
Params = Mapping[str, Any]
SetUp = Callable[[psycopg.AsyncCursor[Any]], None]

_UNDONE = (pg.DeadlockDetected, pg.SerializationFailure)
"""Nothing is stored and the connection is well: a single statement may be run again."""
_TRIES = 3
_LEAVING = ("08", "53", "57P", "25006", "25P03")
"""How the SQLSTATEs begin with which a connection says that it is of no more use."""
LET_GO_SECONDS = 2.0
"""How long psycopg may try to cancel a statement; by itself it would take ten seconds."""
_NOT_OPEN = (
    "The connection pool is not open. Make it with `create_pool(config)` (or "
    "`AsyncConnectionPool(..., open=False)`) and open it in your application's lifespan: "
    "`async with pool:` or `await pool.open(wait=True)`."
)


class Door:
    """Runs statements on a psycopg pool. Made by the JobStore; users never see it."""

    def __init__(self, pool: AsyncConnectionPool[Any], *, timeout_seconds: float) -> None:
        self.pool = pool
        self.timeout_seconds = timeout_seconds

    async def rows(
        self,
        sql: bytes,
        params: Params,
        row_factory: AsyncRowFactory[Row],
        *,
        on: Connection | None = None,
        prepare: bool | None = None,
        set_up: SetUp | None = None,
    ) -> list[Row]:
        """Run one statement and give its rows: on the caller's connection, or in its own commit.

        `prepare=False` has it planned with its actual values: for statements whose LIMIT the
        planner must see. *set_up* changes how the cursor reads values.
        """
        if on is not None:
            return await _fetch(on, sql, params, row_factory, prepare, set_up)
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._rows_alone(sql, params, row_factory, prepare, set_up)
            except _UNDONE as error:
                if not tries_left:
                    raise _unusable(error) from error
        raise AssertionError("unreachable")

    async def _rows_alone(
        self,
        sql: bytes,
        params: Params,
        row_factory: AsyncRowFactory[Row],
        prepare: bool | None,
        set_up: SetUp | None,
    ) -> list[Row]:
        """One statement in its own commit; flat, because every enqueue comes through here."""
        try:
            async with (
                asyncio.timeout(self.timeout_seconds + LET_GO_SECONDS),  # as below
                asyncio.timeout(self.timeout_seconds),
            ):
                conn = await self.pool.getconn(self.timeout_seconds)
                try:
                    return await _fetch_alone(conn, sql, params, row_factory, prepare, set_up)
                except psycopg.Error as error:
                    await _close_if_it_leaves(conn, error)
                    raise
                finally:
                    await self._give_back(conn)
        except (psycopg.Error, TimeoutError) as error:
            self._translate(error)
            raise

    async def _give_back(self, conn: Connection) -> None:
        """Whoever is cancelled meanwhile: the pool would lose it, and count it for ever."""
        returning = self.pool.putconn(conn)
        if conn.pgconn.transaction_status != TransactionStatus.IDLE:
            await asyncio.shield(returning)
            return
        try:
            waits_for = returning.send(None)
        except StopIteration:
            return  # as nearly always; a task for it would cost a quarter of a statement's CPU
        await asyncio.shield(_rest(returning, waits_for))

    @asynccontextmanager
    async def transaction(self, on: Connection | None = None) -> AsyncIterator[Connection]:
        """A transaction of its own, or a savepoint in the caller's."""
        if on is not None:
            if not on.autocommit and on.info.transaction_status is TransactionStatus.IDLE:
                # Without this the block below would be the transaction, and commit at its end.
                await on.execute(b"SELECT")
            async with on.transaction():
                yield on
            return
        try:
            async with self._borrowed() as conn, _read_committed(conn), conn.transaction():
                yield conn
        except _UNDONE as error:
            raise _unusable(error) from error

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Connection]:
        try:
            async with (
                # The second cancel interrupts the driver's handling of the first.
                asyncio.timeout(self.timeout_seconds + LET_GO_SECONDS),
                asyncio.timeout(self.timeout_seconds),
            ):
                conn = await self.pool.getconn(self.timeout_seconds)
                try:
                    yield conn
                except psycopg.Error as error:
                    await _close_if_it_leaves(conn, error)
                    raise
                finally:
                    await self._give_back(conn)
        except (psycopg.Error, TimeoutError) as error:
            self._translate(error)
            raise

    def _translate(self, error: psycopg.Error | TimeoutError) -> None:
        """Raise StoreUnavailable if *error* is the database's trouble, and none of ours."""
        if isinstance(error, PoolClosed):
            raise StoreUnavailable(_NOT_OPEN) from error
        if isinstance(error, PoolTimeout | TimeoutError):
            raise StoreUnavailable(
                f"The database gave no answer within {self.timeout_seconds:g} s."
            ) from error
        if isinstance(error, _UNDONE):
            return
        if isinstance(error, psycopg.OperationalError) or _leaves(error):
            raise _unusable(error) from error


async def _rest(begun: Coroutine[Any, Any, None], waits_for: object) -> None:
    """The rest of a coroutine whose first step was taken, and led to a wait."""

    class Rest:
        def __await__(self) -> Generator[Any, Any, None]:
            yield waits_for
            yield from begun.__await__()

    await Rest()


def is_refusal(error: StoreUnavailable) -> bool:
    """Whether the server itself ended the statement, and so nothing of it is stored."""
    cause = error.__cause__
    return isinstance(cause, psycopg.Error) and bool(cause.sqlstate) and not _leaves(cause)


def _unusable(error: psycopg.Error) -> StoreUnavailable:
    return StoreUnavailable(f"The database cannot be used: {type(error).__name__}.")


async def _close_if_it_leaves(conn: Connection, error: psycopg.Error) -> None:
    if isinstance(error, pg.ReadOnlySqlTransaction):
        of_this_process.doubt()
    if _leaves(error):
        await conn.close()


def _leaves(error: psycopg.Error) -> bool:
    return (error.sqlstate or "").startswith(_LEAVING)


@asynccontextmanager
async def _read_committed(conn: Connection) -> AsyncIterator[None]:
    if conn.info.transaction_status is not TransactionStatus.IDLE:
        # Of somebody else, and it began with what it said.
        yield
        return
    given = conn.isolation_level
    await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            await conn.set_isolation_level(given)


async def _fetch(
    conn: Connection,
    sql: bytes,
    params: Params,
    row_factory: AsyncRowFactory[Row],
    prepare: bool | None,
    set_up: SetUp | None,
) -> list[Row]:
    # Binary results: a started job is read for two thirds of the CPU time.
    cursor = conn.cursor(row_factory=row_factory, binary=True)
    if set_up is not None:
        set_up(cursor)
    await cursor.execute(sql, params, prepare=prepare)
    return await cursor.fetchall() if cursor.description else []


async def _fetch_alone(
    conn: Connection,
    sql: bytes,
    params: Params,
    row_factory: AsyncRowFactory[Row],
    prepare: bool | None,
    set_up: SetUp | None,
) -> list[Row]:
    """In autocommit, which the connection has only for so long if it is not its own setting."""
    if conn.autocommit:
        return await _fetch(conn, sql, params, row_factory, prepare, set_up)
    await conn.set_autocommit(True)
    try:
        return await _fetch(conn, sql, params, row_factory, prepare, set_up)
    finally:
        with suppress(psycopg.Error):
            await conn.set_autocommit(False)
