"""A job made on behalf of another has a deadline that is no later than its parent's."""

from __future__ import annotations

from datetime import timedelta

import pytest

from async_jobs.store.jobs import JobStore

from .factories import MIDNIGHT, JobFactory, new_job

KEYS = [None, "once"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("tolerance", "parent_in", "run_in", "deadline_in"),
    [
        (60.0, 5.25, None, 5.25),
        (2.0, 5.25, None, 2.0),
        (60.0, -5.0, None, 0.0),
        (60.0, 0.0, None, 0.0),
        (60.0, 5.25, 3.0, 5.25),
        (60.0, 5.25, -3.0, 5.25),
        (60.0, 0.000001, None, 0.000001),
        (1e8, 99_999_999.5, None, 99_999_999.5),
    ],
)
async def test_the_earlier_of_the_two_deadlines_counts_to_the_microsecond(
    store: JobStore,
    jobs: JobFactory,
    key: str | None,
    tolerance: float,
    parent_in: float,
    run_in: float | None,
    deadline_in: float,
) -> None:
    job = new_job(
        delay_tolerance_seconds=tolerance,
        run_at=None if run_in is None else MIDNIGHT + timedelta(seconds=run_in),
        latest_deadline_at=MIDNIGHT + timedelta(seconds=parent_in),
        dedupe_key=key,
    )
    await store.enqueue([job])

    row = await jobs.row(job)
    assert row.deadline_at == MIDNIGHT + timedelta(seconds=deadline_in)
    assert row.delay_tolerance == row.deadline_at - row.run_at


@pytest.mark.parametrize("key", KEYS)
async def test_without_a_parent_its_own_tolerance_counts(
    store: JobStore, jobs: JobFactory, key: str | None
) -> None:
    job = new_job(delay_tolerance_seconds=60.0, dedupe_key=key)
    await store.enqueue([job])

    assert (await jobs.row(job)).deadline_at == MIDNIGHT + timedelta(seconds=60)
