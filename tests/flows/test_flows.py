"""One job's way from its producer to its end, through real processes and both transports."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from async_jobs.models import JobStatus
from async_jobs.service import JobService

from .stage import USE_CASE, Stage

AT_ONCE = {"type": "constant", "base_delay_seconds": 0, "jitter": 0}


async def enqueue(service: JobService, type: str, **fields: Any) -> UUID:
    asked = {"tenant_id": "acme", "use_case": USE_CASE, "payload": {}, **fields}
    return (await service.enqueue(type=type, **asked)).job_id


async def test_a_job_runs_and_its_result_is_kept(shared_stage: Stage, service: JobService) -> None:
    job_id = await enqueue(service, "note", payload={"n": 7})

    job = await shared_stage.finished(service.get, job_id)

    assert (job.status, job.result, job.attempts) == (
        JobStatus.SUCCEEDED,
        {"n": 7, "attempt": 1},
        1,
    )
    assert shared_stage.runs_of(job_id) == 1


async def test_log_lines_name_the_job(shared_stage: Stage, service: JobService) -> None:
    job_id = await enqueue(service, "note", payload={"n": "a log line"})
    await shared_stage.finished(service.get, job_id)
    worker = shared_stage.processes[1]

    await shared_stage.until("the end is logged", lambda: f"job {job_id} (note" in worker.log)
    assert f"noted a log line  [job {job_id}, tenant acme, use case {USE_CASE}" in worker.log


async def test_a_job_that_failed_runs_again(shared_stage: Stage, service: JobService) -> None:
    job_id = await enqueue(
        service, "flaky", payload={"succeeds_at": 3}, max_attempts=3, backoff_policy=AT_ONCE
    )

    job = await shared_stage.finished(service.get, job_id)

    assert (job.status, job.attempts, job.result) == (JobStatus.SUCCEEDED, 3, {"attempt": 3})
    assert job.last_error is not None
    assert (job.last_error["type"], job.last_error["attempt"]) == ("ConnectionError", 2)


async def test_a_job_that_keeps_failing_is_dead_after_its_last_attempt(
    shared_stage: Stage, service: JobService
) -> None:
    job_id = await enqueue(
        service, "flaky", payload={"succeeds_at": 9}, max_attempts=2, backoff_policy=AT_ONCE
    )

    job = await shared_stage.finished(service.get, job_id)

    assert (job.status, job.attempts) == (JobStatus.DEAD, 2)
    assert shared_stage.runs_of(job_id) == 2


async def test_a_dead_job_that_is_requeued_runs_again(
    shared_stage: Stage, service: JobService
) -> None:
    job_id = await enqueue(service, "flaky", payload={"succeeds_at": 2}, max_attempts=1)
    assert (await shared_stage.finished(service.get, job_id)).status == JobStatus.DEAD

    await service.requeue(job_id)

    job = await shared_stage.finished(service.get, job_id)
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 2)


async def test_a_delayed_job_does_not_start_before_its_time(
    shared_stage: Stage, service: JobService
) -> None:
    run_at = datetime.now(UTC) + timedelta(seconds=0.7)
    job_id = await enqueue(service, "note", run_at=run_at)

    job = await shared_stage.finished(service.get, job_id)

    assert job.started_at is not None
    assert job.started_at >= run_at


async def test_a_second_job_with_the_same_dedupe_key_does_not_run(
    shared_stage: Stage, service: JobService
) -> None:
    let_go = shared_stage.file("dedupe")
    fields: dict[str, Any] = {"payload": {"until": str(let_go)}, "dedupe_key": "only one"}
    first = await enqueue(service, "hold", **fields)

    second = await enqueue(service, "hold", **fields)
    let_go.touch()
    await shared_stage.finished(service.get, first)
    third = await enqueue(service, "hold", **fields)
    await shared_stage.finished(service.get, third)

    assert second == first
    assert third != first
    assert shared_stage.runs_of(first) == 1


async def test_a_tenant_with_a_quota_runs_one_at_a_time_and_holds_up_nobody(
    shared_stage: Stage, service: JobService
) -> None:
    let_go = shared_stage.file("quota")
    held = [
        await enqueue(service, "hold", tenant_id="narrow", payload={"until": str(let_go)})
        for _ in range(3)
    ]
    other = await enqueue(service, "note", tenant_id="wide")
    await shared_stage.finished(service.get, other)
    await shared_stage.until("one of them runs", lambda: set(held) & set(shared_stage.runs()))

    counted = shared_stage.query(
        "SELECT count(*) FROM jobs WHERE tenant_id = 'narrow' AND leased_at IS NOT NULL"
    )
    let_go.touch()
    jobs = [await shared_stage.finished(service.get, job_id) for job_id in held]
    jobs.sort(key=lambda job: str(job.started_at))
    assert counted == [(1,)]
    moments = [str(at) for job in jobs for at in (job.started_at, job.finished_at)]
    assert moments == sorted(moments)


async def test_a_running_job_can_be_cancelled(shared_stage: Stage, service: JobService) -> None:
    job_id = await enqueue(service, "hold", payload={"until": str(shared_stage.file("never"))})
    await shared_stage.until("the job runs", lambda: shared_stage.runs_of(job_id))

    asked = await service.cancel(job_id)

    job = await shared_stage.finished(service.get, job_id)
    assert asked.status == JobStatus.RUNNING
    assert (job.status, job.attempts) == (JobStatus.CANCELLED, 1)


async def test_a_cancelled_pending_job_never_runs(shared_stage: Stage, service: JobService) -> None:
    run_at = datetime.now(UTC) + timedelta(hours=1)
    job_id = await enqueue(service, "note", run_at=run_at)

    job = await service.cancel(job_id)

    assert job.status == JobStatus.CANCELLED
    assert shared_stage.runs_of(job_id) == 0


async def test_a_handler_can_enqueue(shared_stage: Stage, service: JobService) -> None:
    parent = await shared_stage.finished(service.get, await enqueue(service, "parent"))

    child = await shared_stage.finished(service.get, UUID(parent.result))

    assert (child.type, child.tenant_id, child.result["n"]) == ("note", "acme", "child")


async def test_more_plain_handlers_than_cores_run_at_once(
    shared_stage: Stage, service: JobService
) -> None:
    """Each has a thread of its own, up to the worker's concurrency."""
    let_go = shared_stage.file("threads")
    job_ids = [
        await enqueue(service, "hold_thread", payload={"until": str(let_go)}) for _ in range(15)
    ]

    await shared_stage.until("all run at once", lambda: set(job_ids) <= set(shared_stage.runs()))

    let_go.touch()
    jobs = await asyncio.gather(*[shared_stage.finished(service.get, one) for one in job_ids])
    assert {job.result for job in jobs} == {"let go"}
