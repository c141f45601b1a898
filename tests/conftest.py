"""A PostgreSQL for the whole run, a fresh migrated database for each test, and leak checks.

The server is our own embedded one; TEST_POSTGRES_BIN names a folder with the binaries of
another version, TEST_POSTGRES_DSN a server that runs (a superuser's connection string).
With TEST_PGBOUNCER=1 the tests reach it through PgBouncer in transaction mode, and what
needs a session of its own is skipped. A test that leaves connections or asyncio tasks
behind fails.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from moving_parts import EMPTY_ALL_TABLES, POOLED, POOLED_SETTINGS, POSTGRES_BIN
from pooler import pooler
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from xdist.scheduler import LoadScopeScheduling

from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer

_Admin = psycopg.Connection[tuple[object, ...]]

_POOLED_SESSIONS = 40

MANY_PROCESSES = ("dev", "examples", "faults", "flows", "proofs")
"""Tests in these folders need both cores, and so never run beside each other."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three processes for the whole suite, which mostly waits; a part of it runs in this one."""
    whole = {Path(arg).resolve() for arg in config.args} == {Path(__file__).parent}
    return 3 if whole else 0


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByCrowd(config, log)


class ByCrowd(LoadScopeScheduling):
    """Files stay whole, and tests that start many processes run one after the other."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = path.removeprefix("tests/").partition("/")[0]
        return "many processes" if folder in MANY_PROCESSES else path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Half a character in what a test wrote must not stop its report on its way to this process."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
        for name, text in report.sections
    ]
    return report


def pytest_configure() -> None:
    # A slow machine is no failure.
    settings.register_profile(
        "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("any machine")
    os.environ.update(POOLED_SETTINGS)
    if POOLED:
        # What tests connect by themselves prepares nothing either.
        for kind in (psycopg.Connection, psycopg.AsyncConnection):
            kind.connect.__func__.__kwdefaults__["prepare_threshold"] = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what cannot be asked through a pooler."""
    if POOLED:
        reason = pytest.mark.skip(reason="needs a session of its own; a pooler shares them")
        for item in items:
            if item.get_closest_marker("own_session"):
                item.add_marker(reason)


@pytest.fixture(scope="session")
def direct_dsn() -> Iterator[str]:
    """A superuser's connection string of the server itself."""
    given = os.environ.get("TEST_POSTGRES_DSN")
    if given:
        yield given
        return
    with PostgresServer(settings="fast", bin_dir=POSTGRES_BIN) as server:
        yield server.dsn if POOLED else server.socket_dsn


@pytest.fixture(scope="session")
def postgres_dsn(direct_dsn: str) -> Iterator[str]:
    """What the tests connect to: the server, or the pooler before it."""
    if not POOLED:
        yield direct_dsn
        return
    with (
        TemporaryDirectory(prefix="pgbouncer-") as folder,
        pooler(direct_dsn, Path(folder), sessions=_POOLED_SESSIONS) as dsn,
    ):
        yield dsn


@pytest.fixture(scope="session")
def postgres_admin(direct_dsn: str) -> Iterator[_Admin]:
    """One connection in autocommit for creating and dropping databases."""
    with psycopg.connect(direct_dsn, autocommit=True) as admin:
        yield admin


@pytest.fixture(scope="session")
def template_database(direct_dsn: str, postgres_admin: _Admin) -> Iterator[str]:
    """The name of a database with the schema, which nobody is connected to."""
    name = f"async_jobs_template_{uuid.uuid4().hex[:12]}"
    postgres_admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(make_conninfo(direct_dsn, dbname=name)) as conn:
        conn.execute(get_ddl())
    yield name
    _drop(postgres_admin, name)


@pytest.fixture
def database(postgres_dsn: str, postgres_admin: _Admin, template_database: str) -> Iterator[str]:
    """The connection string of a fresh database with the schema; gone after the test."""
    name = f"async_jobs_test_{uuid.uuid4().hex[:12]}"
    postgres_admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template_database)
        )
    )
    yield make_conninfo(postgres_dsn, dbname=name)
    left = _connections_left(postgres_admin, name)
    _drop(postgres_admin, name)
    if left:
        pytest.fail(f"The test left connections open: {left}")


@pytest.fixture(scope="session")
def shared_database(
    postgres_dsn: str, postgres_admin: _Admin, template_database: str
) -> Iterator[str]:
    """The connection string of a database that many tests use one after the other."""
    name = f"async_jobs_shared_{uuid.uuid4().hex[:12]}"
    postgres_admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template_database)
        )
    )
    yield make_conninfo(postgres_dsn, dbname=name)
    _drop(postgres_admin, name)


@pytest.fixture
def emptied_database(shared_database: str, postgres_admin: _Admin) -> Iterator[str]:
    """The shared database, emptied after the test: much quicker than a fresh one."""
    yield shared_database
    name = str(conninfo_to_dict(shared_database)["dbname"])
    left = _connections_left(postgres_admin, name)
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute(EMPTY_ALL_TABLES)
    if left:
        pytest.fail(f"The test left connections open: {left}")


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """Fail an async test that leaves asyncio tasks behind; fixtures have ended by then."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("watch_tasks")


@pytest_asyncio.fixture
async def watch_tasks() -> AsyncIterator[None]:
    """The async half of `no_task_left`."""
    yield
    left = _other_tasks()
    for _ in range(10):
        if not left:
            return
        await asyncio.sleep(0)
        left = _other_tasks()
    pytest.fail(f"The test left asyncio tasks behind: {left}")


def _other_tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def _connections_left(admin: _Admin, name: str, patience_seconds: float = 2.0) -> list[str]:
    """What is still connected; a backend needs a moment to end after its client has."""
    if POOLED:
        return []  # these sessions are the pooler's
    deadline = time.monotonic() + patience_seconds
    while True:
        rows = admin.execute(
            "SELECT pid, application_name, state, left(query, 200) FROM pg_stat_activity "
            "WHERE datname = %s AND backend_type = 'client backend'",
            [name],
        ).fetchall()
        if not rows or time.monotonic() > deadline:
            return [str(row) for row in rows]
        time.sleep(0.005)


def _drop(admin: _Admin, name: str) -> None:
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
