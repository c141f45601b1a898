"""Both transports, each as a line from a scheduler's end to any number of workers' ends."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from moving_parts import AWS, Events, open_store
from store.factories import JobFactory, SettableClock

from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.store.jobs import JobStore
from async_jobs.transport import sqs
from async_jobs.transport.sqs import SqsClient

from .line import Line, PostgresLine, SqsLine


@pytest.fixture(scope="session")
def sqs_server() -> Iterator[SqsServer]:
    with SqsServer.in_thread(faults=True) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def aws() -> Iterator[None]:
    """Credentials of nobody."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS.items():
            patch.setenv(name, value)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def sqs_client(sqs_server: SqsServer, aws: None) -> Iterator[SqsClient]:
    """A client that tries once: what fails is meant to fail now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqs, "TRIES", 1)
        client = SqsClient(sqs_server.endpoint_url)
    yield client
    client.close()


@pytest.fixture
def database(emptied_database: str) -> str:
    return emptied_database


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest_asyncio.fixture
async def store(database: str, clock: SettableClock) -> AsyncIterator[JobStore]:
    async with open_store(database, clock=clock) as opened:
        yield opened


@pytest.fixture
def jobs(store: JobStore) -> JobFactory:
    return JobFactory(store)


@pytest.fixture
def sqs_line(
    sqs_server: SqsServer, sqs_client: SqsClient, store: JobStore, events: Events
) -> Iterator[SqsLine]:
    yield SqsLine(store, events, sqs_server, sqs_client, f"mail-{uuid.uuid4().hex[:8]}")
    sqs_server.faults.clear()


@pytest.fixture
def postgres_line(store: JobStore, events: Events) -> PostgresLine:
    return PostgresLine(store, events)


@pytest.fixture(params=["sqs", "postgres"])
def line(request: pytest.FixtureRequest) -> Line:
    """The same behaviour is asked of every transport."""
    made: Line = request.getfixturevalue(f"{request.param}_line")
    return made
