"""What stands still comes back: a queue without workers, a flow that only fails."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

import psycopg
import pytest
from moving_parts import open_store

from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.models import NewJob

from .conftest import MakeStage
from .stage import USE_CASE, Stage

CAPACITY = 4
ON_SQS = pytest.mark.parametrize("transport", ["sqs"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("transport", ["postgres"], indirect=True)


async def enqueue(stage: Stage, type: str, count: int, **fields: Any) -> list[UUID]:
    asked = {"tenant_id": "acme", "use_case": USE_CASE, "payload": {}, **fields}
    async with open_store(stage.dsn) as store:
        jobs = await stage.service(store).enqueue_many([NewJob(type=type, **asked)] * count)
    return [job.job_id for job in jobs]


def depth(server: SqsServer, stage: Stage) -> int:
    """Messages in the queue, whether a worker may see them or not."""
    assert stage.queue_url is not None
    counts = server.messages(stage.queue_url.rpartition("/")[2])
    return counts.visible + counts.in_flight + counts.delayed


def let_time_pass(stage: Stage) -> None:
    """Let the last probe be a minute ago."""
    with psycopg.connect(stage.dsn, autocommit=True) as conn:
        conn.execute("UPDATE jobs_breakers SET probed_at = probed_at - interval '1 minute'")


def breakers(stage: Stage) -> list[tuple[Any, ...]]:
    return stage.query("SELECT tenant_id, type FROM jobs_breakers")


def none_in_flight(stage: Stage) -> bool:
    return stage.query("SELECT count(*) FROM jobs WHERE leased_at IS NOT NULL") == [(0,)]


def attempts(stage: Stage, job_ids: list[UUID]) -> int:
    sql = "SELECT sum(attempts) FROM jobs WHERE id = ANY (%s)"
    return int(stage.query(sql, job_ids)[0][0])


@ON_SQS
async def test_without_workers_for_many_leases_the_queue_stays_shallow_and_then_drains_at_once(
    make_stage: MakeStage, sqs_server: SqsServer
) -> None:
    stage = make_stage(
        ASYNC_JOBS_FLOW_MAX_CONCURRENT=str(CAPACITY),
        ASYNC_JOBS_DISPATCH_LEASE_SECONDS="0.3",
        ASYNC_JOBS_SCHEDULER_INTERVAL_SECONDS="0.1",
    )
    job_ids = await enqueue(stage, "note", 30)
    scheduler = stage.scheduler()
    await stage.until("tickets are sent", lambda: depth(sqs_server, stage) >= CAPACITY)
    deepest = 0
    ends_at = time.monotonic() + 4.0
    while time.monotonic() < ends_at:
        deepest = max(deepest, depth(sqs_server, stage))
        await asyncio.sleep(0.02)

    assert CAPACITY <= deepest <= 2 * CAPACITY, scheduler.log
    assert stage.query("SELECT max(attempts) FROM jobs") == [(0,)]
    stage.worker()
    await stage.all_succeeded(job_ids)
    assert set(stage.runs().values()) == {1}


@ON_POSTGRES
async def test_a_flow_that_only_fails_is_shut_probed_and_opened_while_others_go_on(
    make_stage: MakeStage,
) -> None:
    stage = make_stage()
    works = stage.file("works")
    soon = {"type": "constant", "base_delay_seconds": 0.3, "jitter": 0}
    failing = await enqueue(
        stage, "fragile", 20, payload={"works": str(works)}, max_attempts=100, backoff_policy=soon
    )
    stage.scheduler()
    stage.worker()
    await stage.until("the flow is shut", lambda: breakers(stage) == [("acme", "fragile")])
    await stage.until("what was in flight has ended", lambda: none_in_flight(stage))
    runs, used = stage.runs().total(), attempts(stage, failing)

    others = await enqueue(stage, "note", 10) + await enqueue(stage, "note", 10, tenant_id="bolt")
    await stage.all_succeeded(others)
    assert stage.runs().total() == runs + len(others)

    let_time_pass(stage)
    await stage.until("a probe ran", lambda: stage.runs().total() == runs + len(others) + 1)
    await stage.until("it has ended", lambda: none_in_flight(stage))
    assert attempts(stage, failing) == used
    assert breakers(stage) == [("acme", "fragile")]

    works.touch()
    let_time_pass(stage)
    await stage.all_succeeded(failing)
    assert breakers(stage) == []
