"""Stages for the flows: both transports, each with a database, a queue and a folder of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from moving_parts import open_store
from psycopg.conninfo import make_conninfo

from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.service import JobService

from .stage import Stage

QUOTAS = '{"narrow": {"max_concurrent_jobs": 1}}'

MakeStage = Callable[..., Stage]


@pytest.fixture(scope="session")
def sqs_server() -> Iterator[SqsServer]:
    with SqsServer.in_thread() as server:
        yield server


@pytest.fixture(scope="module", params=["sqs", "postgres"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def make_database(
    postgres_admin: psycopg.Connection[tuple[object, ...]],
    postgres_dsn: str,
    template_database: str,
) -> Iterator[Callable[[], str]]:
    names: list[str] = []

    def make() -> str:
        names.append(f"async_jobs_flow_{uuid.uuid4().hex[:12]}")
        postgres_admin.execute(f"CREATE DATABASE {names[-1]} TEMPLATE {template_database}".encode())
        return make_conninfo(postgres_dsn, dbname=names[-1])

    yield make
    for name in names:
        postgres_admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="module")
def shared_stage(
    transport: str,
    make_database: Callable[[], str],
    sqs_server: SqsServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """A scheduler and a worker that many flows share; each flow uses a tenant of its own."""
    stage = Stage(
        make_database(),
        _queue_url(transport, sqs_server),
        tmp_path_factory.mktemp("flow"),
        {"ASYNC_JOBS_PER_TENANT_QUOTAS": QUOTAS},
    )
    stage.scheduler()
    stage.worker()
    yield stage
    codes = stage.stop_all()
    stage.close()
    assert codes == [0, 0], stage.logs()


@pytest.fixture
def make_stage(
    transport: str, make_database: Callable[[], str], sqs_server: SqsServer, tmp_path: Path
) -> Iterator[MakeStage]:
    """Makes an empty stage whose processes belong to the test alone."""
    made: list[Stage] = []

    def make(dsn: str | None = None, **settings: str) -> Stage:
        url = _queue_url(transport, sqs_server)
        made.append(Stage(dsn or make_database(), url, tmp_path, settings))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest_asyncio.fixture
async def service(shared_stage: Stage) -> AsyncIterator[JobService]:
    """A producer on the shared stage."""
    async with open_store(shared_stage.dsn) as store:
        yield shared_stage.service(store)


def _queue_url(transport: str, server: SqsServer) -> str | None:
    return server.create_queue(f"flow-{uuid.uuid4().hex[:8]}") if transport == "sqs" else None
