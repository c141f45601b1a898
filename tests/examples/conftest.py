"""A running mail server and contexts of attempts, for tests of the example application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from async_jobs.models import Enqueued, JobContext, NewJob, new_job_id
from examples.mail_server import PostOffice, mail_server

ContextOf = Callable[..., JobContext]


@pytest.fixture
def office() -> PostOffice:
    """A post office that refuses every letter to the flaky domain and works at once."""
    return PostOffice(flaky_share=1.0, work_seconds=0.0)


@pytest_asyncio.fixture
async def mail_port(office: PostOffice, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The port of a mail server that the handlers know of."""
    async with mail_server(office) as port:
        monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SMTP_PORT", str(port))
        yield port


@pytest.fixture
def outbox() -> list[NewJob]:
    """What the handlers of a test have enqueued."""
    return []


@pytest.fixture
def context(outbox: list[NewJob]) -> ContextOf:
    """Makes the context of a first attempt."""

    async def enqueue(new: NewJob) -> Enqueued:
        outbox.append(new)
        return Enqueued(new_job_id())

    def make(tenant_id: str = "bakery", *, type: str = "send_notification") -> JobContext:
        now = datetime.now(UTC)
        return JobContext(
            job_id=new_job_id(),
            tenant_id=tenant_id,
            use_case="notifications",
            type=type,
            queue="notifications",
            attempt=1,
            max_attempts=3,
            run_at=now,
            deadline_at=now + timedelta(seconds=60),
            lease_seq=1,
            log=logging.LoggerAdapter(logging.getLogger("test"), {}),
            enqueuer=enqueue,
        )

    return make
