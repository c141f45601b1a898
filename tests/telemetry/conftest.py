"""The whole system in one process, with a tracer that keeps its spans in memory."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from jobs_api import app_around
from moving_parts import AWS, PREPARED, until
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from async_jobs.assembly import (
    SqsClients,
    build_receivers,
    build_scheduler,
    build_worker,
    create_pool,
)
from async_jobs.config import AsyncJobsConfig, UseCaseConfig
from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.models import Job, JobStatus
from async_jobs.registry import JobRegistry
from async_jobs.service import JobService
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry import traces
from async_jobs.telemetry.bus import Bus

OpenSystem = Callable[..., AbstractAsyncContextManager["System"]]


@dataclass(frozen=True)
class Kept:
    """The spans that ended, and a tracer for a producer's own."""

    provider: TracerProvider
    exporter: InMemorySpanExporter

    @property
    def tracer(self) -> Any:
        return self.provider.get_tracer("producer")

    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name.startswith(start)]


@pytest.fixture
def kept() -> Iterator[Kept]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.use_provider(provider)
    yield Kept(provider, exporter)
    traces.use_provider(None)
    provider.shutdown()


@dataclass(frozen=True)
class System:
    """A producer's API, a scheduler and a worker at work."""

    service: JobService
    app: FastAPI

    async def finished(self, job_id: uuid.UUID) -> Job:
        job = await self.service.get(job_id)
        while job.status in (JobStatus.PENDING, JobStatus.RUNNING):
            await asyncio.sleep(0.01)
            job = await self.service.get(job_id)
        return job


@pytest.fixture(scope="session")
def sqs_server() -> Iterator[SqsServer]:
    with SqsServer.in_thread() as server:
        yield server


@pytest.fixture(params=["sqs", "postgres"])
def open_system(
    request: pytest.FixtureRequest,
    emptied_database: str,
    sqs_server: SqsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> OpenSystem:
    for name, value in AWS.items():
        monkeypatch.setitem(os.environ, name, value)
    url = None
    if request.param == "sqs":
        url = sqs_server.create_queue(f"mail-{uuid.uuid4().hex[:8]}")
    config = AsyncJobsConfig(
        db_dsn=emptied_database,
        db_prepared_statements=PREPARED,
        use_cases={"mail": UseCaseConfig(name="mail", sqs_queue_url=url)},
        scheduler_interval_seconds=0.05,
        worker_poll_interval_seconds=0.05,
        worker_long_poll_seconds=0.2,
    )
    return lambda registry: _running(config, registry)


@asynccontextmanager
async def _running(config: AsyncJobsConfig, registry: JobRegistry) -> AsyncIterator[System]:
    clients, bus = SqsClients({}), Bus()
    async with create_pool(config) as pool:
        store = JobStore(pool)
        scheduler = build_scheduler(config, store, clients, bus=bus)
        receivers = build_receivers("w", config, store, ["mail"], clients, bus=bus)
        worker = build_worker("w", config, store, registry, receivers, bus=bus)
        service = JobService(config, store)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(scheduler.run())
            tasks.create_task(worker.run())
            try:
                yield System(service, app_around(service))
            finally:
                await until(lambda: worker.running == 0)
                scheduler.stop()
                worker.stop(grace_seconds=1)
    clients.close()
