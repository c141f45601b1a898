"""Rows that were written past the library: one of them must not take its neighbours with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from async_jobs.core.outcome import Raised, decide
from async_jobs.models import JobStatus
from async_jobs.schemas import JobListView, JobView
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


NUMBERS = {
    "beyond a float": f'{{"n": {"9" * 400}}}',
    "beyond a float, with a fraction": f'{{"n": -{"9" * 400}.5}}',
    "beyond 64 bits": '{"n": 9223372036854775808}',
    "below any float": '{"n": 1e-400}',
    "with an exponent": '{"n": 1e4000}',
}


@pytest.mark.parametrize("payload", NUMBERS.values(), ids=NUMBERS.keys())
async def test_any_number_can_be_shown_and_started(
    payload: str, jobs: JobFactory, store: JobStore, db: psycopg.Connection[Any]
) -> None:
    job = await jobs.leased()
    policy = payload.replace('"n"', '"type": "constant", "base_delay_seconds"')
    db.execute(
        "UPDATE jobs SET payload = %(n)s::jsonb, result = %(n)s::jsonb, last_error = %(n)s::jsonb, "
        "backoff_policy = %(policy)s::jsonb, timeout_seconds = 'infinity'",
        {"n": payload, "policy": policy},
    )

    shown = JobView.model_validate(await jobs.row(job.job_id)).model_dump_json()
    [started] = await store.start([ticket(job)], worker="w", lease_seconds=30)

    assert JobView.model_validate_json(shown).id == job.job_id
    assert started.payload.keys() == {"n"}
    retried = decide(started, Raised(ValueError("no")), random=0.5)
    assert await store.finish([(started, retried)]) == {job.job_id}


@pytest.mark.parametrize("value", ["5", "[1]", '"x"', "true"])
async def test_what_is_no_object_hides_no_page(
    value: str, jobs: JobFactory, store: JobStore, db: psycopg.Connection[Any]
) -> None:
    await jobs.waiting()
    db.execute(
        "UPDATE jobs SET backoff_policy = %(value)s::jsonb, last_error = %(value)s::jsonb, "
        "trace_context = %(value)s::jsonb",
        {"value": value},
    )

    [listed] = JobListView.model_validate(await store.find()).jobs

    assert listed.last_error == listed.backoff_policy == {"async_jobs_note": "is no object"}


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
