"""Processes that stop, die or lose their database: no job is lost, and little is repeated."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from moving_parts import POSTGRES_BIN, open_store

from async_jobs.embedded.postgres import PostgresServer
from async_jobs.models import JobStatus, NewJob
from async_jobs.store.jobs import JobStore

from .conftest import MakeStage
from .stage import USE_CASE, Process, Stage
from .test_flows import enqueue

# What does not depend on the transport is asked of one of them.
ON_SQS = pytest.mark.parametrize("transport", ["sqs"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("transport", ["postgres"], indirect=True)


async def enqueue_notes(
    stage: Stage, store: JobStore, count: int, takes_seconds: float
) -> list[UUID]:
    payload = {"takes_seconds": takes_seconds}
    enqueued = await stage.service(store).enqueue_many(
        [
            NewJob(tenant_id="acme", use_case=USE_CASE, type="note", payload=payload)
            for _ in range(count)
        ]
    )
    return [one.job_id for one in enqueued]


def held_by(stage: Stage, process: Process) -> int:
    """How many jobs a process had running when it was killed."""
    sql = "SELECT count(*) FROM jobs WHERE status = 'running' AND split_part(worker, ':', 3) = %s"
    return int(stage.query(sql, str(process.popen.pid))[0][0])


def ran(stage: Stage, at_least: int) -> bool:
    return len(stage.runs()) >= at_least


async def test_kill_9_of_workers_and_schedulers_amid_5000_jobs_loses_none(
    make_stage: MakeStage,
) -> None:
    stage = make_stage()
    async with open_store(stage.dsn) as store:
        job_ids = await enqueue_notes(stage, store, 5_000, takes_seconds=0.005)
    schedulers = [stage.scheduler(), stage.scheduler()]
    workers = [stage.worker(), stage.worker()]
    repeats_allowed = 0
    for done, victim in ((800, workers[0]), (1_600, schedulers[0]), (2_400, workers[1])):
        await stage.until(f"{done} jobs ran", lambda done=done: ran(stage, done))  # type: ignore[misc] # a default binds it
        victim.kill()
        repeats_allowed += held_by(stage, victim)
        stage.start(victim.name.partition("-")[0])
    # A scheduler on its own, with what its killed predecessor had leased.
    schedulers[1].kill()

    await stage.all_succeeded(job_ids)

    runs = stage.runs()
    assert set(runs) == set(job_ids)
    assert sum(runs.values()) - len(job_ids) <= repeats_allowed, stage.logs()
    assert stage.query("SELECT count(*) FROM jobs WHERE leased_at IS NOT NULL") == [(0,)]
    assert set(stage.stop_all()) == {0}, stage.logs()


@pytest.mark.parametrize(
    ("transport", "type"), [("sqs", "hold"), ("postgres", "hold_thread")], indirect=["transport"]
)
async def test_a_worker_that_is_stopped_amid_a_job_gives_it_back_unused(
    make_stage: MakeStage, type: str
) -> None:
    stage = make_stage()
    first = stage.worker(ASYNC_JOBS_WORKER_GRACE_SECONDS="0.2")
    scheduler = stage.scheduler()
    let_go = stage.file("let-go")
    async with open_store(stage.dsn) as store:
        service = stage.service(store)
        job_id = await enqueue(service, type, payload={"until": str(let_go)}, max_attempts=1)
        await stage.until("the job runs", lambda: stage.runs_of(job_id) == 1)

        scheduler.kill()
        first.send(signal.SIGTERM)
        code = await asyncio.to_thread(first.exit_code)
        released = await service.get(job_id)
        let_go.touch()
        stage.scheduler()
        second = stage.worker()
        finished = await stage.finished(service.get, job_id)

    assert code == 0, stage.logs()
    assert (released.status, released.attempts, released.due) == (JobStatus.PENDING, 0, True)
    assert (finished.status, finished.attempts) == (JobStatus.SUCCEEDED, 1)
    assert finished.worker is not None
    assert finished.worker.split(":")[2] == str(second.popen.pid)


@ON_SQS
async def test_a_worker_that_is_stopped_lets_short_jobs_finish(make_stage: MakeStage) -> None:
    stage = make_stage()
    worker, _ = stage.worker(), stage.scheduler()
    let_go = stage.file("let-go")
    async with open_store(stage.dsn) as store:
        service = stage.service(store)
        job_id = await enqueue(service, "hold", payload={"until": str(let_go)})
        await stage.until("the job runs", lambda: stage.runs_of(job_id))

        worker.send(signal.SIGTERM)
        await stage.until("the worker stops", lambda: "stopping" in worker.log)
        let_go.touch()
        code = await asyncio.to_thread(worker.exit_code)
        job = await service.get(job_id)

    assert code == 0, stage.logs()
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)


@ON_POSTGRES
async def test_a_handler_that_ignores_its_interruption_keeps_neither_the_process_nor_its_job(
    make_stage: MakeStage,
) -> None:
    stage = make_stage()
    worker, _ = stage.worker(ASYNC_JOBS_WORKER_GRACE_SECONDS="0.2"), stage.scheduler()
    async with open_store(stage.dsn) as store:
        service = stage.service(store)
        until = str(stage.file("never"))
        job_id = await enqueue(service, "stubborn", payload={"until": until}, max_attempts=1)
        await stage.until("the job runs", lambda: stage.runs_of(job_id))

        worker.send(signal.SIGTERM)
        code = await asyncio.to_thread(worker.exit_code)

        job = await service.get(job_id)
    assert code == 0, stage.logs()
    assert (job.status, job.attempts) == (JobStatus.PENDING, 0)
    assert "stuck: its handler was told to end" in worker.log


@ON_SQS
async def test_a_second_signal_ends_the_grace(make_stage: MakeStage) -> None:
    stage = make_stage()
    worker, _ = stage.worker(ASYNC_JOBS_WORKER_GRACE_SECONDS="600"), stage.scheduler()
    async with open_store(stage.dsn) as store:
        service = stage.service(store)
        job_id = await enqueue(service, "hold", payload={"until": str(stage.file("never"))})
        await stage.until("the job runs", lambda: stage.runs_of(job_id))

        worker.send(signal.SIGTERM)
        await stage.until("the worker stops", lambda: "stopping" in worker.log)
        worker.send(signal.SIGINT)

        assert await asyncio.to_thread(worker.exit_code) == 0, stage.logs()
        assert (await service.get(job_id)).attempts == 0


@ON_POSTGRES
async def test_a_job_that_kills_its_worker_is_dead_after_its_attempts(
    make_stage: MakeStage,
) -> None:
    stage = make_stage()
    stage.scheduler()
    async with open_store(stage.dsn) as store:
        service = stage.service(store)
        until = str(stage.file("never"))
        job_id = await enqueue(service, "hold", payload={"until": until}, max_attempts=2)
        for attempt in (1, 2):
            worker = stage.worker()
            await stage.until("the job runs", lambda n=attempt: stage.runs_of(job_id) == n)  # type: ignore[misc] # a default binds it
            worker.kill()
        job = await stage.finished(service.get, job_id)

    assert (job.status, job.attempts) == (JobStatus.DEAD, 2)
    assert (job.last_error or {})["type"] == "WorkerLost"


async def test_processes_outlive_a_restart_of_the_database(
    make_stage: MakeStage, tmp_path: Path
) -> None:
    server = PostgresServer(tmp_path / "data", settings="fast", bin_dir=POSTGRES_BIN).start()
    try:
        await _run_through_a_restart(make_stage(server.dsn), server)
    finally:
        server.discard()


async def _run_through_a_restart(stage: Stage, server: PostgresServer) -> None:
    scheduler, worker = stage.scheduler(), stage.start("worker", "--init-db")
    async with open_store(stage.dsn) as store:
        await store.init_schema()
        job_ids: Sequence[UUID] = await enqueue_notes(stage, store, 800, takes_seconds=0.02)
    # A scheduler that came before the schema has said so and ended.
    if not scheduler.is_running:
        scheduler = stage.scheduler()
    await stage.until("a quarter ran", lambda: ran(stage, 200))

    server.stop()
    await stage.until("the outage is told", lambda: " failed (" in worker.log)
    server.start()
    await stage.all_succeeded(job_ids)

    assert scheduler.is_running, stage.logs()
    assert worker.is_running, stage.logs()
    # Leases are long enough for the outage, so that at most what was cut off is repeated.
    assert sum(stage.runs().values()) - len(job_ids) <= 2 * stage.config.worker_concurrency
    assert stage.stop_all() == [0, 0], stage.logs()
