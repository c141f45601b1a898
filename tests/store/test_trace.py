"""What ran to its end is read back as it arrived, page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from async_jobs.simulation.arrivals import Arrival
from async_jobs.store.jobs import JobStore
from async_jobs.store.queries import query

from .factories import (
    BURIED,
    CANCELLED,
    MIDNIGHT,
    RETRIED,
    SUCCEEDED,
    JobFactory,
    SettableClock,
)

HALFWAY = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)


async def pages(store: JobStore, use_case: str = "mail", **options: Any) -> list[list[Arrival]]:
    return [page async for page in store.finished_pages(use_case, **options)]


async def test_an_arrival_says_when_it_was_first_due_and_how_long_an_attempt_ran(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    first = await jobs.running(delay_tolerance_seconds=7.5, priority=2, max_attempts=5)
    await store.finish([(first, RETRIED)])
    clock.advance(60)
    await store.promote_due(10)
    second = await jobs.start(await jobs.lease_again(first.id))
    clock.advance(2.5)
    await store.finish([(second, SUCCEEDED)])

    assert await pages(store) == [
        [Arrival(MIDNIGHT.timestamp(), "acme", "send", 2.5, 7.5, 2, 1, 5)]
    ]


async def test_a_job_that_was_buried_failed_every_time(store: JobStore, jobs: JobFactory) -> None:
    await jobs.finished(BURIED)

    [[arrival]] = await pages(store)
    assert arrival.failing_attempts == 1


async def test_what_has_not_run_to_its_end_is_left_out(
    store: JobStore, jobs: JobFactory, db: psycopg.Connection[Any]
) -> None:
    await jobs.waiting()
    await jobs.leased()
    await jobs.running()
    await jobs.finished(CANCELLED)
    await jobs.finished(use_case="reports")
    db.execute("UPDATE jobs SET started_at = NULL WHERE use_case = 'reports'")

    assert await pages(store) == []
    assert await pages(store, "reports") == []


async def test_every_job_is_on_one_page_even_when_many_finished_at_once(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    for number in range(7):
        await jobs.finished(priority=number)
        clock.advance(number % 3 == 2)

    read = await pages(store, page=2)

    assert [len(page) for page in read] == [2, 2, 2, 1]
    assert sorted(each.priority for page in read for each in page) == list(range(7))


async def test_an_export_may_begin_later(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.finished()
    clock.advance(60)
    await jobs.finished(priority=1)

    [page] = await pages(store, since=MIDNIGHT + timedelta(seconds=60))

    assert [each.priority for each in page] == [1]


def test_a_page_in_the_middle_reads_little_more_than_its_rows(db: psycopg.Connection[Any]) -> None:
    db.execute(
        "INSERT INTO jobs (id, run_at, deadline_at, delay_tolerance, due, status, attempts,"
        " tenant_id, use_case, type, queue, payload, started_at, finished_at)"
        " SELECT gen_random_uuid(), at, at, '0', false, 'succeeded', 1, 'acme', 'mail', 'send',"
        " 'mail', '{}', at, at"
        " FROM generate_series(timestamptz '2026-01-01Z', '2026-01-01T05:00Z', '1 s') at"
    )
    db.execute("VACUUM ANALYZE jobs")

    row = db.execute(
        b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query("trace_finished", "trace"),
        {"use_case": "mail", "after_at": HALFWAY, "after_id": UUID(int=0), "most": 100},
        prepare=False,
    ).fetchone()

    assert row is not None
    plan = row[0][0]["Plan"]
    assert plan["Actual Rows"] == 100
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 130
