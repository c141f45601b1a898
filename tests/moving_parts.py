"""What the tests of scheduler, worker and transports share: a store, kept events, bounded waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from psycopg_pool import AsyncConnectionPool

from async_jobs.models import StartedJob, new_job_id
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import Event

PATIENCE_SECONDS = 60.0
POOLED = os.environ.get("TEST_PGBOUNCER", "") not in ("", "0")
"""Whether the tests reach PostgreSQL through PgBouncer."""
PREPARED = "off" if POOLED else "on"
POOLED_SETTINGS = {"ASYNC_JOBS_DB_PREPARED_STATEMENTS": PREPARED} if POOLED else {}
"""What the documentation wants behind a pooler."""
POSTGRES_BIN = Path(os.environ["TEST_POSTGRES_BIN"]) if "TEST_POSTGRES_BIN" in os.environ else None
"""The binaries of another PostgreSQL than the embedded one."""
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""What boto3 needs beside a queue URL to talk to a local server."""

EMPTY_ALL_TABLES = """
    DO $$
    DECLARE name text;
    BEGIN
        TRUNCATE jobs;
        FOR name IN SELECT tablename FROM pg_tables
            WHERE schemaname = 'public' AND tablename <> 'jobs'
        LOOP
            EXECUTE format('DELETE FROM %I', name);
        END LOOP;
    END $$
"""
"""One file to empty instead of six: the control tables are small."""

E = TypeVar("E", bound=Event)


@dataclass(slots=True)
class Events:
    """Keeps every event that `bus` carries."""

    seen: list[Event] = field(default_factory=list)

    @property
    def bus(self) -> Bus:
        return Bus(self.seen.append)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen if isinstance(event, kind)]

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.seen]


@asynccontextmanager
async def open_pool(dsn: str, size: int = 4) -> AsyncIterator[AsyncConnectionPool[Any]]:
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        dsn, min_size=1, max_size=size, open=False, kwargs={"autocommit": True}
    )
    async with pool:
        yield pool


@asynccontextmanager
async def open_store(dsn: str, size: int = 4, **more: Any) -> AsyncIterator[JobStore]:
    """A store as a process has it; without a clock the time is the database's."""
    async with open_pool(dsn, size) as pool:
        yield JobStore(pool, **more)


async def until(
    condition: Callable[[], object], *, within_seconds: float = PATIENCE_SECONDS, what: str = ""
) -> None:
    """Wait until *condition* holds; fails after the deadline."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds:g} s: {what or condition}")
        await asyncio.sleep(0.002)


def started_job(**changes: Any) -> StartedJob:
    """A job as a receiver gives it to the worker."""
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "id": new_job_id(),
        "lease_seq": 1,
        "tenant_id": "acme",
        "use_case": "mail",
        "type": "send",
        "queue": "mail-queue",
        "payload": {"to": "ada"},
        "attempts": 1,
        "max_attempts": 3,
        "backoff_policy": {"type": "constant", "base_delay_seconds": 40, "jitter": 0},
        "run_at": now,
        "deadline_at": now + timedelta(seconds=60),
        "started_at": now,
        "lease_expires_at": now + timedelta(seconds=30),
    }
    return StartedJob(**{**fields, **changes})


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what could change the tests, and with *more*."""
    ours = ("ASYNC_JOBS_", "AWS_", "QUEUE_URL", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **AWS, **POOLED_SETTINGS, **more}
