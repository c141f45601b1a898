"""A store on an open pool over an empty migrated database, with a clock that stands still."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from moving_parts import EMPTY_ALL_TABLES, POOLED
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from async_jobs.store.jobs import JobStore
from async_jobs.store.lease_keeper import LeaseKeeper

from .factories import JobFactory, SettableClock

Pool = AsyncConnectionPool[Any]
Admin = psycopg.Connection[tuple[object, ...]]


@contextmanager
def cloned(admin: Admin, dsn: str, template: str) -> Iterator[str]:
    name = f"async_jobs_store_{uuid.uuid4().hex[:12]}"
    admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    yield make_conninfo(dsn, dbname=name)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def shared_database(
    postgres_admin: Admin, postgres_dsn: str, template_database: str
) -> Iterator[str]:
    with cloned(postgres_admin, postgres_dsn, template_database) as dsn:
        yield dsn


@pytest.fixture
def fresh_database(
    postgres_admin: Admin, postgres_dsn: str, template_database: str
) -> Iterator[str]:
    """For tests that change the schema or fill the table."""
    with cloned(postgres_admin, postgres_dsn, template_database) as dsn:
        yield dsn


@pytest.fixture
def database(shared_database: str, postgres_admin: Admin) -> Iterator[str]:
    """One database for all of these tests, emptied after each: five times as fast as a new one."""
    yield shared_database
    left = connections_left(postgres_admin, shared_database)
    for pid, *_ in left:
        postgres_admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute(EMPTY_ALL_TABLES)
    if left:
        pytest.fail(f"The test left connections open: {left}")


def connections_left(admin: Admin, dsn: str, patience_seconds: float = 10.0) -> list[Any]:
    """What is still connected; a backend needs a moment to end after its client has."""
    if POOLED:
        return []  # these sessions are the pooler's
    deadline = time.monotonic() + patience_seconds
    while True:
        left = admin.execute(
            "SELECT pid, application_name, state, left(query, 200) FROM pg_stat_activity "
            "WHERE datname = %s AND backend_type = 'client backend'",
            [conninfo_to_dict(dsn)["dbname"]],
        ).fetchall()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.005)


@pytest_asyncio.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with open_pool(database, 4) as opened:
        yield opened


@pytest_asyncio.fixture
async def wide_pool(database: str) -> AsyncIterator[Pool]:
    """Twenty real connections, open before the test begins."""
    async with open_pool(database, 20) as opened:
        await opened.wait(timeout=30)
        yield opened


def open_pool(database: str, size: int) -> Pool:
    return AsyncConnectionPool(
        database,
        min_size=size if size > 4 else 1,
        max_size=size,
        open=False,
        kwargs={"autocommit": True},
    )


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def store(pool: Pool, clock: SettableClock) -> JobStore:
    return JobStore(pool, clock=clock)


@pytest.fixture
def live_store(pool: Pool) -> JobStore:
    """A store that takes the time from the database, as in production."""
    return JobStore(pool)


@pytest.fixture
def jobs(store: JobStore) -> JobFactory:
    return JobFactory(store)


@pytest.fixture
def live_jobs(live_store: JobStore) -> JobFactory:
    return JobFactory(live_store)


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A plain connection in autocommit, for looking and for planting."""
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


@pytest.fixture
def make_keeper(database: str) -> Iterator[Callable[[], LeaseKeeper]]:
    """Makes lease keepers and closes them after the test."""
    made: list[LeaseKeeper] = []

    def make(timeout_seconds: float = 5.0) -> LeaseKeeper:
        made.append(
            LeaseKeeper(database, application_name="keeper", timeout_seconds=timeout_seconds)
        )
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()


@pytest.fixture
def wide_store(wide_pool: Pool) -> JobStore:
    """For many at once, on a machine that is busy with much else."""
    return JobStore(wide_pool, timeout_seconds=60)
