"""Without its database the API answers 503 with Retry-After, in time, and works again by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import psycopg
import pytest
from jobs_api import JOB, app_around, caller
from moving_parts import POSTGRES_BIN, PREPARED
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from async_jobs import AsyncJobsConfig, JobService, JobStore, create_pool
from async_jobs.api import bounded
from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.errors import StoreUnavailable
from async_jobs.models import new_job_id
from async_jobs.store.door import LET_GO_SECONDS
from async_jobs.testing import TcpProxy

WITHIN_SECONDS = 1.0
SLOWEST_SECONDS = 5.0
UNKNOWN = "018f2f6e-0b7c-7cc1-8a3b-0123456789ab"
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "enqueue": ("POST", "/jobs/enqueue", JOB),
    "enqueue with a key": ("POST", "/jobs/enqueue", JOB | {"dedupe_key": "k"}),
    "enqueue-many": ("POST", "/jobs/enqueue-many", {"jobs": [JOB, JOB]}),
    "list": ("GET", "/jobs/", None),
    "slo": ("GET", "/jobs/slo", None),
    "get": ("GET", f"/jobs/{UNKNOWN}", None),
    "explain": ("GET", f"/jobs/{UNKNOWN}/explain", None),
    "cancel": ("POST", f"/jobs/{UNKNOWN}/cancel", None),
    "requeue": ("POST", f"/jobs/{UNKNOWN}/requeue", None),
}
WRITES = [name for name in REQUESTS if name.startswith("enqueue")] + ["cancel", "requeue"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL of our own, to be stopped under the API."""
    folder = tmp_path_factory.mktemp("outage") / "data"
    with PostgresServer(folder, settings="fast", bin_dir=POSTGRES_BIN) as server:
        with psycopg.connect(server.dsn) as conn:
            conn.execute(get_ddl())
        yield server


@asynccontextmanager
async def api_on(dsn: str, **pool_options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    config = AsyncJobsConfig(db_dsn=dsn, db_prepared_statements=PREPARED)
    async with create_pool(config, **pool_options) as pool:
        app = app_around(JobService(config, JobStore(pool)), answer_within_seconds=WITHIN_SECONDS)
        async with caller(app) as api:
            yield api
        await ended()


async def ended() -> None:
    """Everything that an answer did not wait for is over."""
    while bounded._left_behind:
        await asyncio.wait(set(bounded._left_behind))


async def assert_unavailable(api: httpx2.AsyncClient, *names: str) -> None:
    """Each of these requests, sent at the same time, is answered 503 in time."""

    async def ask(name: str) -> tuple[httpx2.Response, float]:
        method, path, content = REQUESTS[name]
        began = time.monotonic()
        answer = await api.request(method, path, json=content)
        return answer, time.monotonic() - began

    for answer, took_seconds in await asyncio.gather(*map(ask, names or REQUESTS)):
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert took_seconds < SLOWEST_SECONDS


async def answers_again(api: httpx2.AsyncClient) -> None:
    """The API takes jobs again, with nobody restarting it."""
    asked = JOB | {"job_id": str(new_job_id())}
    for _ in range(20):
        if (await api.post("/jobs/enqueue", json=asked)).status_code in (200, 201):
            return
    raise AssertionError("still unavailable")


@pytest.mark.slow
async def test_a_database_that_is_stopped_and_started_again(server: PostgresServer) -> None:
    async with api_on(server.dsn) as api:
        await answers_again(api)
        server.stop()
        try:
            for _ in range(2):
                await assert_unavailable(api)
        finally:
            server.start()
        await answers_again(api)


@pytest.mark.slow
async def test_a_network_that_swallows_everything(server: PostgresServer) -> None:
    with TcpProxy.in_thread(server.port) as proxy:
        async with api_on(make_conninfo(server.dsn, port=proxy.port)) as api:
            await answers_again(api)
            proxy.black_hole()
            try:
                await assert_unavailable(api)
            finally:
                proxy.heal()
            await answers_again(api)


@pytest.mark.slow
async def test_a_call_before_a_network_that_swallows_everything_hangs_up_in_time(
    server: PostgresServer,
) -> None:
    """By itself the driver would wait ten seconds for its cancel to be answered."""
    with TcpProxy.in_thread(server.port) as proxy:
        config = AsyncJobsConfig(db_dsn=make_conninfo(server.dsn, port=proxy.port))
        async with create_pool(config, max_size=1) as pool:
            store = JobStore(pool, timeout_seconds=2.0)
            await store.get(new_job_id())
            proxy.black_hole()

            with pytest.raises(StoreUnavailable, match="no answer within 2 s"):
                async with asyncio.timeout(2.0 + LET_GO_SECONDS + 4.0):
                    await store.get(new_job_id())

            proxy.heal()


@pytest.mark.slow
async def test_a_pool_with_nothing_left(database: str) -> None:
    config = AsyncJobsConfig(db_dsn=database, db_prepared_statements=PREPARED)
    async with create_pool(config, max_size=1) as pool:
        app = app_around(JobService(config, JobStore(pool)), answer_within_seconds=WITHIN_SECONDS)
        async with caller(app) as api:
            async with pool.connection():
                await assert_unavailable(api)
            await ended()
            await answers_again(api)


TROUBLES = {
    "a lock time-out": "-c lock_timeout=20",
    "a statement time-out": "-c statement_timeout=20",
}


@pytest.mark.own_session
@pytest.mark.parametrize("options", TROUBLES.values(), ids=TROUBLES.keys())
async def test_a_table_that_somebody_else_has_locked(database: str, options: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        async with api_on(make_conninfo(database, options=options)) as api:
            await assert_unavailable(api, *(name for name in REQUESTS if name != "slo"))
            other.rollback()
            await answers_again(api)


@pytest.mark.own_session
async def test_a_server_that_only_reads(database: str) -> None:
    read_only = "-c default_transaction_read_only=on"
    async with api_on(make_conninfo(database, options=read_only)) as api:
        await assert_unavailable(api, *WRITES)

        # New connections come at a pace, since the old ones were answered by who only reads.
        answers = [(await api.get("/jobs/")).status_code for _ in range(5)]
        assert answers[-1] == 200


async def test_connections_that_the_server_ends(
    database: str, postgres_admin: psycopg.Connection[Any]
) -> None:
    name = conninfo_to_dict(database)["dbname"]
    async with api_on(database, max_size=1) as api:
        await answers_again(api)
        postgres_admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND backend_type = 'client backend'",
            [name],
        )

        answer = await api.post("/jobs/enqueue", json=JOB)

        assert answer.status_code in (201, 503)
        await answers_again(api)


@pytest.mark.own_session
async def test_a_server_that_lets_nobody_in(
    database: str, postgres_admin: psycopg.Connection[Any]
) -> None:
    name = conninfo_to_dict(database)["dbname"]
    postgres_admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        async with api_on(database) as api:
            await assert_unavailable(api)
    finally:
        postgres_admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
