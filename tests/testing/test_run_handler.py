"""Handlers can be tested without a database."""

from __future__ import annotations

import pytest

from async_jobs import Snooze
from async_jobs.core.lifecycle import Move
from async_jobs.errors import UnknownType
from async_jobs.models import JobContext
from async_jobs.registry import JobRegistry
from async_jobs.testing import run_handler


@pytest.fixture
def registry() -> JobRegistry:
    return JobRegistry()


async def test_a_handler_that_returns_succeeds(registry: JobRegistry) -> None:
    @registry.handler("double")
    async def double(ctx: JobContext, payload: dict[str, int]) -> int:
        return 2 * payload["n"]

    run = await run_handler("double", {"n": 4}, registry=registry)

    assert (run.outcome.move, run.returned) == (Move.SUCCEED, 8)


async def test_a_handler_that_raises_is_retried_and_at_last_buried(registry: JobRegistry) -> None:
    @registry.handler("fail")
    def fail(payload: dict[str, int]) -> None:
        raise ValueError("no")

    first = await run_handler("fail", {}, registry=registry)
    last = await run_handler("fail", {}, registry=registry, attempt=3)

    assert (first.outcome.move, last.outcome.move) == (Move.RETRY, Move.BURY)
    assert isinstance(first.raised, ValueError)


async def test_what_a_handler_enqueues_is_kept(registry: JobRegistry) -> None:
    @registry.handler("parent")
    async def parent(ctx: JobContext, payload: dict[str, int]) -> None:
        await ctx.enqueue("child", {"n": 1})

    run = await run_handler("parent", {}, registry=registry, tenant_id="acme")

    assert [(new.type, new.tenant_id) for new in run.enqueued] == [("child", "acme")]


async def test_a_snooze_gives_the_attempt_back(registry: JobRegistry) -> None:
    @registry.handler("later")
    async def later(payload: dict[str, int]) -> None:
        raise Snooze(5)

    run = await run_handler("later", {}, registry=registry)

    assert run.outcome.gives_attempt_back


async def test_an_unknown_type_is_told(registry: JobRegistry) -> None:
    with pytest.raises(UnknownType):
        await run_handler("nothing", {}, registry=registry)
