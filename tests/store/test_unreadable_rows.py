"""Rows that were written past the library: one of them must not take its neighbours with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from async_jobs.models import JobStatus
from async_jobs.store.jobs import JobStore

from .factories import JobFactory, new_job, ticket

HUGE = f'{{"n": {"9" * 5_000}}}'
DEEP = f'{{"n": {"[" * 3_000}{"]" * 3_000}}}'


@pytest.mark.parametrize("payload", [HUGE, DEEP], ids=["huge number", "deep nesting"])
@pytest.mark.parametrize("from_table", [True, False])
async def test_an_unreadable_payload_is_said_on_its_job_and_the_others_start(
    payload: str, from_table: bool, jobs: JobFactory, store: JobStore, db: psycopg.Connection[Any]
) -> None:
    good, bad = await jobs.leased(), await jobs.leased()
    db.execute("UPDATE jobs SET payload = %s::jsonb WHERE id = %s", [payload, bad.job_id])

    if from_table:
        started = await store.start_leased(["mail-queue"], slots=9, worker="w", lease_seconds=30)
    else:
        tickets = [ticket(good), ticket(bad)]
        started = await store.start(tickets, worker="w", lease_seconds=30)

    found = {job.id: job for job in started}
    assert (found[good.job_id].payload, found[good.job_id].unreadable) == ({"to": "ada"}, "")
    assert found[bad.job_id].payload == {}
    assert found[bad.job_id].unreadable in ("ValueError", "RecursionError")


async def test_other_values_that_cannot_be_read_count_as_none(
    jobs: JobFactory, db: psycopg.Connection[Any]
) -> None:
    leased = await jobs.leased()
    db.execute("UPDATE jobs SET backoff_policy = %s::jsonb, first_run_at = 'infinity'", [HUGE])

    started = await jobs.start(leased)

    assert (started.backoff_policy, started.first_run_at) == (None, None)
    assert (started.payload, started.unreadable) == ({"to": "ada"}, "")


async def test_an_unreadable_row_can_be_looked_at_listed_and_cancelled(
    jobs: JobFactory, store: JobStore, db: psycopg.Connection[Any]
) -> None:
    good, bad = await jobs.waiting(), await jobs.waiting()
    db.execute(
        "UPDATE jobs SET payload = %s::jsonb, last_error = %s::jsonb, first_run_at = 'infinity', "
        "updated_at = '-infinity' WHERE id = %s",
        [HUGE, HUGE, bad.id],
    )

    row = await jobs.row(bad.id)
    listed = (await store.find()).jobs
    cancelled = await store.cancel(bad.id)

    assert row.payload == row.last_error == {"async_jobs_note": "cannot be read (ValueError)"}
    assert row.first_run_at == datetime.max.replace(tzinfo=UTC)
    assert row.updated_at == datetime.min.replace(tzinfo=UTC)
    assert {job.id for job in listed} == {good.id, bad.id}
    assert cancelled is not None
    assert cancelled.status is JobStatus.CANCELLED


async def test_a_time_out_travels_to_the_attempt(jobs: JobFactory) -> None:
    plain = await jobs.running(timeout_seconds=1.5)
    keyed = await jobs.running(timeout_seconds=2.5, dedupe_key="k")

    assert (plain.timeout_seconds, keyed.timeout_seconds) == (1.5, 2.5)
    assert (await jobs.row(plain)).timeout_seconds == 1.5
    assert new_job().timeout_seconds is None


async def test_a_column_of_a_newer_schema_does_not_matter(
    jobs: JobFactory, db: psycopg.Connection[Any]
) -> None:
    job = await jobs.waiting()
    db.execute("ALTER TABLE jobs ADD COLUMN of_tomorrow text")
    try:
        assert (await jobs.row(job.id)).id == job.id
    finally:
        db.execute("ALTER TABLE jobs DROP COLUMN of_tomorrow")
