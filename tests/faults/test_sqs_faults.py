"""An SQS that forgets, doubles, reorders, refuses, hangs, loses answers, or carries rubbish."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import boto3
import pytest
from starvation import Stopwatch

from async_jobs.models import new_job_id

from .conftest import MakeRun
from .ground import (
    GRACE_SECONDS,
    INTERVAL_SECONDS,
    LEASE_SECONDS,
    LENGTH,
    SQS,
    TABLE,
    Ground,
    Run,
)

pytestmark = pytest.mark.slow

RESUME_SECONDS = 5.0


async def through(run: Run, jobs: int) -> dict[str, Any]:
    """A scheduler and a worker bring *jobs* through what SQS does; then every invariant holds."""
    run.scheduler(), run.worker()
    await run.started()
    await run.put(int(jobs * LENGTH), use_cases=[SQS])
    with run.outage():
        await run.drained()
    figures = run.verify()
    run.ground.heal()
    run.ends_well()
    return figures


async def test_f36_a_queue_that_forgets_everything(make_run: MakeRun, ground: Ground) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    await run.put(int(100 * LENGTH), use_cases=[SQS], seconds=0.1)
    with run.outage():
        for _ in range(int(6 * LENGTH)):
            ground.sqs.wipe()
            await asyncio.sleep(0.1)
        watch = Stopwatch()
        await run.drained()
    seconds = watch.seconds

    figures = run.verify()
    assert seconds <= 2 * (LEASE_SECONDS + INTERVAL_SECONDS)
    assert figures["runs"] == figures["jobs"]
    assert run.number("SELECT max(attempts) FROM jobs") == 1


async def test_f37_messages_doubled_reordered_and_undeletable(
    make_run: MakeRun, ground: Ground
) -> None:
    ground.sqs.faults.add("duplicate", probability=0.3)
    ground.sqs.faults.add("reorder")
    ground.sqs.faults.add("ignore_delete", probability=0.1)

    figures = await through(make_run(), 300)

    assert figures["runs"] == figures["jobs"]


async def test_f38_refusals_errors_and_batches_that_fail_in_part(
    make_run: MakeRun, ground: Ground
) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    ground.sqs.faults.add("throttle", probability=0.5)
    ground.sqs.faults.add("server_error", probability=0.2)
    ground.sqs.faults.add("partial_failure", probability=0.3)
    with run.outage():
        await run.put(int(60 * LENGTH), use_cases=[SQS])
        await asyncio.sleep(4.0 * LENGTH)
        ground.heal()
    await run.drained()

    figures = run.verify()
    assert figures["runs"] == figures["jobs"]
    assert run.number("SELECT count(*) FROM jobs WHERE enqueue_failed") == 0


async def test_f40_answers_lost_after_the_send(make_run: MakeRun, ground: Ground) -> None:
    ground.sqs.faults.add("after_send_reset", probability=0.3)

    figures = await through(make_run(), 300)

    assert figures["runs"] == figures["jobs"]


@pytest.mark.parametrize("fault", ["delay", "hang"])
async def test_f41_a_slow_queue_holds_up_no_other_and_no_stop(
    make_run: MakeRun, ground: Ground, fault: str
) -> None:
    run = make_run()
    processes = [run.scheduler(), run.worker()]
    await run.started()
    ground.sqs.faults.add(fault, seconds=5.0)
    with run.outage():
        await run.put(4, use_cases=[SQS])
        await asyncio.sleep(0.5)
        watch = Stopwatch()
        jobs = await run.put(4, use_cases=[TABLE])
        await run.until("the other use case goes on", lambda: run.entered(jobs) == len(jobs))
        seconds = watch.seconds
        watch = Stopwatch()
        for process in processes:
            process.send(signal.SIGTERM)
        codes = [await asyncio.to_thread(one.exit_code) for one in processes]
        stopped = watch.seconds
        ground.heal()
        run.scheduler(), run.worker()
        await run.drained()

    run.verify()
    assert seconds <= INTERVAL_SECONDS + 1
    assert codes == [0, 0], run.logs()
    assert stopped <= 2 * GRACE_SECONDS + 5, run.logs()


async def test_f41_a_queue_that_comes_back_is_used_again_at_once(
    make_run: MakeRun, ground: Ground
) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    with run.outage():
        await run.put(20, use_cases=[SQS], seconds=0.05)
        ground.sqs_proxy.refuse()
        ground.sqs_proxy.reset()
        await asyncio.sleep(2.0 * LENGTH)
        ground.sqs_proxy.heal()
    seconds = await run.next_start()
    await run.drained()

    run.verify()
    assert seconds <= RESUME_SECONDS


def rubbish() -> list[str]:
    """Bodies that no scheduler of ours has sent, or not for this queue."""
    stranger = str(new_job_id())
    return [
        "no JSON",
        "[]",
        "{}",
        '{"orders": [1, 2]}',
        json.dumps({"jobs": [[stranger, 1]]}),
        json.dumps({"job_id": stranger, "lease_seq": 7}),
        json.dumps({"job_id": "'; DROP TABLE jobs; --"}),
        "9" * 100_000,
        "[" * 50_000,
    ]


async def test_f43_messages_that_are_not_ours(make_run: MakeRun) -> None:
    run = make_run()
    url = str(run.queue_url)
    sqs = boto3.client(
        "sqs",
        endpoint_url=url.rpartition("/")[0].rpartition("/")[0],
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    count = int(3 * LENGTH)
    for body in rubbish() * count:
        sqs.send_message(QueueUrl=url, MessageBody=body)
    sqs.close()
    worker = run.worker()
    run.scheduler()
    await run.put(20, use_cases=[SQS])
    await run.drained()
    counts = run.ground.sqs
    name = url.rpartition("/")[2]
    await run.until("the queue is empty", lambda: not counts.messages(name).visible)

    figures = run.verify()
    assert (figures["jobs"], figures["runs"]) == (20, 20)
    removed = worker.log.count("message removed")
    assert 0 < removed <= len(rubbish()) * count
    assert max(map(len, worker.log.splitlines())) < 2_000
    run.ends_well()
