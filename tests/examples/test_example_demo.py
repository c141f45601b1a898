"""The demo against the real API, database, worker, scheduler and mail server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from moving_parts import PREPARED
from rich.console import Console

from async_jobs import AsyncJobsConfig, AsyncJobsHttpClient, JobStore, create_pool
from async_jobs.assembly import (
    SqsClients,
    build_due_listener,
    build_leased_listener,
    build_receivers,
    build_scheduler,
    build_worker,
)
from async_jobs.cli.process import listening
from async_jobs.config import TenantQuota
from async_jobs.registry import job_registry, load_handlers
from async_jobs.telemetry.bus import Bus
from examples.app import create_app
from examples.demo import MailCount, Run, Screen, watch
from examples.domains import FLAKY, FULL
from examples.mail_server import PostOffice
from examples.traffic import Arrival, traffic

Running = Callable[[], AbstractAsyncContextManager[None]]


def quick_arrivals(jobs: int) -> list[Arrival]:
    """Traffic of which every job is over after one attempt."""
    arrivals = traffic(2 * jobs, 0.02, began_at=datetime.now(UTC), seed=5)
    quick = [
        each
        for each in arrivals
        if each.job.run_at is None
        and not str(each.job.payload.get("recipient", "")).endswith((FULL, FLAKY))
    ]
    return quick[:jobs]


@pytest.fixture
def config(database: str) -> AsyncJobsConfig:
    return AsyncJobsConfig(
        db_dsn=database,
        db_prepared_statements=PREPARED,
        enqueue_auth_token="secret-token",
        per_tenant_quotas={"*": TenantQuota(max_pending_jobs=1_000)},
    )


@pytest_asyncio.fixture
async def client(config: AsyncJobsConfig) -> AsyncIterator[AsyncJobsHttpClient]:
    """A client of the jobs API of the example's web service."""
    app = create_app(config)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app=app)) as http,
    ):
        yield AsyncJobsHttpClient("http://localhost", "secret-token", http_client=http)


@pytest.fixture
def running(config: AsyncJobsConfig) -> Running:
    """A scheduler and a worker with the example's handlers, while inside."""

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        load_handlers("examples.handlers")
        bus, clients = Bus(), SqsClients({})
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(create_pool(config))
            store = JobStore(pool)
            scheduler = build_scheduler(config, store, clients, bus=bus)
            receivers = build_receivers("test", config, store, [], clients, bus=bus)
            worker = build_worker("test", config, store, job_registry, receivers, bus=bus)
            for listener in (
                build_due_listener("test", config, scheduler),
                build_leased_listener("test", config, receivers),
            ):
                await stack.enter_async_context(listening(listener, bus=bus))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            group.create_task(scheduler.run())
            group.create_task(worker.run())
            yield
            scheduler.stop()
            worker.stop(grace_seconds=5.0)

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("mail_port")
async def test_a_run_ends_when_every_job_has_finished_and_both_counts_of_letters_agree(
    client: AsyncJobsHttpClient, running: Running, office: PostOffice
) -> None:
    mail = MailCount()
    await mail.begin()
    run = Run(client, quick_arrivals(60))
    screen = Screen(Console(quiet=True))
    screen.every_seconds = 0.05
    async with running():
        await run.send()
        await watch(run, screen, patience_seconds=60)
    report = await mail.report(run)

    assert run.is_over
    assert run.sent == 60
    assert len(run.jobs) >= run.sent - run.twins
    assert office.delivered.total() > 0
    assert f"{office.delivered.total()} letters delivered as the jobs say" in report
    assert f"{office.delivered.total()} as the mail server counts" in report


async def test_a_run_that_nobody_works_for_is_not_over(client: AsyncJobsHttpClient) -> None:
    run = Run(client, quick_arrivals(20))
    await run.send()
    await run.look()

    assert not run.is_over
    assert {job.status for job in run.jobs} == {"pending"}
    assert len(run.jobs) == run.sent - run.twins


async def test_a_run_is_over_only_when_a_second_look_shows_the_same_jobs(
    client: AsyncJobsHttpClient,
) -> None:
    run = Run(client, quick_arrivals(5))
    await run.send()
    for job in (await client.list()).jobs:
        await client.cancel(job.id)
    seen = []
    for _ in range(2):
        await run.look()
        seen.append(run.is_over)

    assert seen == [False, True]


async def test_a_run_does_not_count_the_jobs_of_an_earlier_one(
    client: AsyncJobsHttpClient,
) -> None:
    for _ in range(2):
        run = Run(client, quick_arrivals(20))
        await run.send()
        await run.look()

    assert len(run.jobs) == run.sent - run.twins


async def test_the_summary_says_what_was_sent_and_what_has_not_finished(
    client: AsyncJobsHttpClient,
) -> None:
    run = Run(client, quick_arrivals(20))
    await run.send()
    await run.look()
    out = io.StringIO()
    Screen(Console(file=out, width=80)).sum_up(run, "Mail: none.")
    text = out.getvalue()

    assert f"{run.sent} jobs sent, {run.twins} of them twins" in text
    assert f"Not over: {len(run.jobs)} jobs have not finished." in text
