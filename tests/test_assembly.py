"""Which receivers a worker gets for the queues it was told, and where plain handlers run."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from moving_parts import AWS, PREPARED, Events, started_job, until

from async_jobs import assembly
from async_jobs.assembly import SqsClients, build_receivers, create_pool
from async_jobs.cli.process import opened, threads_for_handlers
from async_jobs.config import AsyncJobsConfig, UseCaseConfig
from async_jobs.store import pace
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import HandlerStuck
from async_jobs.transport.postgres import PostgresReceiver
from async_jobs.transport.sqs import POLL_ANSWER_SECONDS, SqsReceiver

URL = "http://127.0.0.1:9/000000000000/outgoing-mail"


def places(*queues: str) -> tuple[list[str], list[str]]:
    """SQS URLs and queues in PostgreSQL that a worker for *queues* consumes."""
    config = AsyncJobsConfig(
        db_dsn="postgresql://localhost",
        use_cases={
            "mail": UseCaseConfig(name="mail", sqs_queue_url=URL),
            "labels": UseCaseConfig(name="labels"),
        },
    )
    clients = SqsClients({})
    no_pool: Any = None
    store = JobStore(no_pool)
    made = build_receivers("ada", config, store, queues, clients, bus=Events().bus)
    clients.close()
    urls = [one._queue_url for one in made if isinstance(one, SqsReceiver)]
    tables = [queue for one in made if isinstance(one, PostgresReceiver) for queue in one._queues]
    return urls, tables


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("queue", "found"),
    [
        (URL, ([URL], [])),
        ("outgoing-mail", ([URL], [])),
        ("mail", ([URL], [])),
        ("labels", ([], ["labels"])),
        ("my-queue", ([], ["my-queue"])),
        ("Orders.fifo", ([], ["Orders.fifo"])),
        ("http://127.0.0.1:9/1/elsewhere", (["http://127.0.0.1:9/1/elsewhere"], [])),
    ],
    ids=[
        "url",
        "name of the queue",
        "use case",
        "use case in PostgreSQL",
        "dashes",
        "fifo",
        "url nobody configured",
    ],
)
def test_a_queue_is_found_by_url_name_or_use_case(
    queue: str, found: tuple[list[str], list[str]]
) -> None:
    assert places(queue) == found


def test_without_queues_a_worker_consumes_all_that_are_configured() -> None:
    urls, tables = places()

    assert urls == [URL]
    assert set(tables) == {"labels", "notifications", "message_labeling"}


def test_a_queue_named_twice_has_one_receiver() -> None:
    assert places("mail", URL, "outgoing-mail", "labels", "labels") == ([URL], ["labels"])


async def test_plain_handlers_have_a_thread_for_each_attempt(database: str) -> None:
    """And some to spare: a reconnect looks up a host name in the same threads."""
    together = threading.Barrier(25, timeout=20)
    loop = asyncio.get_running_loop()
    with threads_for_handlers(24, bus=Bus()):
        waiting = [loop.run_in_executor(None, together.wait) for _ in range(24)]
        await asyncio.to_thread(together.wait)
        await asyncio.gather(*waiting)


async def test_stuck_handlers_keep_no_thread_from_the_others() -> None:
    let_go, bus, job = threading.Event(), Bus(), started_job()
    loop = asyncio.get_running_loop()
    with threads_for_handlers(1, bus=bus):
        for _ in range(3):
            stuck = [loop.run_in_executor(None, let_go.wait, 20) for _ in range(5)]
            bus.emit(
                HandlerStuck(
                    job_id=job.id,
                    tenant_id=job.tenant_id,
                    use_case=job.use_case,
                    type=job.type,
                    queue=job.queue,
                    ran_seconds=9.0,
                )
            )
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "ran"), 20) == "ran"
        let_go.set()
        await asyncio.gather(*stuck)


async def test_a_pool_tries_again_soon_after_a_long_outage(database: str) -> None:
    config = AsyncJobsConfig(db_dsn=database, db_prepared_statements=PREPARED)
    async with opened(config, name="ada", init_db=False, connections=1) as (store, _):
        assert store._door.pool.reconnect_timeout <= 5


async def test_a_pool_looks_for_a_connection_as_long_as_somebody_waits(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "RECONNECT_SECONDS", 0.01)
    monkeypatch.setattr(pace, "SPACING_SECONDS", 0.01)
    closed = AsyncJobsConfig(
        db_dsn="postgresql://nobody@127.0.0.1:1/none", db_prepared_statements=PREPARED
    )
    async with create_pool(closed, max_size=2) as pool:
        waiting = asyncio.ensure_future(JobStore(pool, timeout_seconds=60).ping())
        # Each connection has given up several times by then.
        await until(lambda: pool.get_stats().get("connections_errors", 0) >= 20)

        pool.conninfo = database
        await asyncio.wait_for(waiting, 20)


def test_the_pools_backoff_does_not_outlast_an_outage_by_much() -> None:
    pool = create_pool(AsyncJobsConfig(db_dsn="postgresql://nobody@127.0.0.1:1/none"))

    assert pool.reconnect_timeout <= 3.0


def test_a_worker_gives_up_polls_soon_after_the_wait_that_is_configured() -> None:
    use_cases = {"mail": UseCaseConfig(name="mail", sqs_queue_url=URL)}
    config = AsyncJobsConfig(
        db_dsn="postgresql://localhost", use_cases=use_cases, worker_long_poll_seconds=1.5
    )
    clients = SqsClients({})
    no_pool: Any = None

    build_receivers("ada", config, JobStore(no_pool), (), clients, bus=Events().bus)

    (client,) = clients.made.values()
    clients.close()
    assert client._poller.meta.config.read_timeout == 2 + POLL_ANSWER_SECONDS
