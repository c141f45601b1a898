"""What a handler enqueues shares its deadline unless it says otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from registry_context import CONTEXT

from async_jobs.models import Enqueued, JobContext, NewJob, new_job_id


@pytest.fixture
def enqueued() -> list[NewJob]:
    return []


@pytest.fixture
def ctx(enqueued: list[NewJob]) -> JobContext:
    async def keep(new: NewJob) -> Enqueued:
        enqueued.append(new)
        return Enqueued(new_job_id())

    return replace(CONTEXT, enqueuer=keep)


async def test_a_child_gets_its_parents_deadline(ctx: JobContext, enqueued: list[NewJob]) -> None:
    await ctx.enqueue("child", {})

    assert enqueued[0].parent_deadline_at == ctx.deadline_at


async def test_a_child_may_be_left_to_its_own_deadline(
    ctx: JobContext, enqueued: list[NewJob]
) -> None:
    await ctx.enqueue("child", {}, inherit_deadline=False)

    assert enqueued[0].parent_deadline_at is None


def test_what_remains_counts_down_to_the_deadline_and_beyond() -> None:
    def remaining(seconds: float) -> float:
        deadline_at = datetime.now(UTC) + timedelta(seconds=seconds)
        return replace(CONTEXT, deadline_at=deadline_at).remaining()

    assert 0 < remaining(60) <= 60
    assert remaining(-60) <= -60
