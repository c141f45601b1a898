"""The control tables keep what workers tell and schedulers decide, and forget it in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg

from async_jobs.core.backpressure import Lowered
from async_jobs.core.breaker import WINDOW_SECONDS, Breaker
from async_jobs.core.endings import Count, Endings, FlowKey
from async_jobs.store.jobs import JobStore
from async_jobs.store.ladder import ControlTables, Rates

from .factories import MIDNIGHT, SettableClock

MAIL = FlowKey("mail", "acme", "send")
FLOW = ("acme", "send")
FAILING = Endings({MAIL: Count(ended=20, failed=15)})


@asynccontextmanager
async def controls(store: JobStore, use_case: str = "mail") -> AsyncIterator[ControlTables]:
    async with store.take_turn(use_case) as turn:
        assert turn is not None
        yield turn.controls


async def failing(store: JobStore) -> dict[tuple[str, str], Breaker]:
    async with controls(store) as tables:
        return await tables.find_failing()


async def breakers(store: JobStore) -> dict[tuple[str, str], Breaker]:
    async with controls(store) as tables:
        return await tables.find_breakers()


async def test_reports_of_several_workers_add_up_over_the_window(
    store: JobStore, clock: SettableClock
) -> None:
    await store.report_endings(FAILING, ["mail"])
    clock.advance(25)
    await store.report_endings(Endings({MAIL: Count(ended=5, failed=1)}), ["mail"])

    assert await failing(store) == {FLOW: Breaker(ended=25, failed=16, watched_seconds=25.0)}


async def test_what_failed_longer_ago_than_the_window_does_not_count(
    store: JobStore, clock: SettableClock
) -> None:
    await store.report_endings(FAILING, ["mail"])
    clock.advance(WINDOW_SECONDS)
    assert FLOW in await failing(store)

    clock.advance(10)

    assert await failing(store) == {}


async def test_too_few_endings_are_not_judged(store: JobStore) -> None:
    await store.report_endings(Endings({MAIL: Count(ended=19, failed=19)}), ["mail"])

    assert await failing(store) == {}


async def test_a_worker_learns_which_flows_fail_elsewhere_and_only_of_its_use_cases(
    store: JobStore,
) -> None:
    await store.report_endings(FAILING, ["mail"])

    assert await store.report_endings(Endings(), ["mail"]) == {MAIL}
    assert await store.report_endings(Endings(), ["push"]) == set()


async def test_a_flow_is_watched_for_its_failures_not_for_being_told(
    store: JobStore, clock: SettableClock
) -> None:
    """Or a flow that failed once would be told for ever."""
    await store.report_endings(FAILING, ["mail"])
    for _ in range(8):
        clock.advance(10)
        watched = await store.report_endings(Endings({MAIL: Count(ended=5)}), ["mail"])

    assert watched == set()


async def test_a_breaker_opens_is_probed_and_closes_with_its_counts(
    store: JobStore, clock: SettableClock
) -> None:
    await store.report_endings(FAILING, ["mail"])
    async with controls(store) as tables:
        await tables.open_breakers([FLOW])
    clock.advance(30)
    async with controls(store) as tables:
        await tables.probe_breakers([FLOW])
    clock.advance(5)
    assert await breakers(store) == {FLOW: Breaker(open_seconds=35.0, probed_seconds=5.0)}

    await store.report_endings(Endings({MAIL: Count(1, 0, probe_succeeded=True)}), ["mail"])
    assert (await breakers(store))[FLOW].probe_succeeded
    async with controls(store) as tables:
        await tables.close_breakers([FLOW])

    assert (await breakers(store), await failing(store)) == ({}, {})


async def test_opening_an_open_breaker_leaves_it_as_it_was(
    store: JobStore, clock: SettableClock
) -> None:
    for _ in range(2):
        async with controls(store) as tables:
            await tables.open_breakers([FLOW])
        clock.advance(10)

    assert await breakers(store) == {FLOW: Breaker(open_seconds=20.0, probed_seconds=20.0)}


async def test_backpressure_is_remembered_and_taken_back(
    store: JobStore, clock: SettableClock
) -> None:
    pressed = Endings(pressed=frozenset({"mail"}))
    await store.report_endings(pressed, [])
    clock.advance(2)
    async with controls(store) as tables:
        first = await tables.get_capacity()
        await tables.set_capacity(7, moved_seconds=0.5)
    await store.report_endings(pressed, [])
    clock.advance(1)
    async with controls(store) as tables:
        second = await tables.get_capacity()
        await tables.restore_capacity()
        third = await tables.get_capacity()

    assert first == Lowered(capacity=None, told_seconds=2.0, changed_seconds=2.0)
    assert second == Lowered(capacity=7, told_seconds=1.0, changed_seconds=1.5)
    assert third is None


async def test_a_rate_is_kept_for_as_long_as_its_tenant_is_ahead(
    store: JobStore, clock: SettableClock
) -> None:
    async with controls(store) as tables:
        assert await tables.find_rates() == Rates(MIDNIGHT, {})
        await tables.set_rates(MIDNIGHT, {"acme": 4.0, "bolt": 1.5})
        await tables.set_rates(MIDNIGHT, {"acme": 5.0})
    clock.advance(2)
    async with controls(store) as tables:
        rates = await tables.find_rates()

    assert rates == Rates(MIDNIGHT + timedelta(seconds=2), {"acme": 3.0})


async def test_pruning_leaves_what_still_says_something(
    store: JobStore, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    await store.report_endings(FAILING, ["mail"])
    async with controls(store) as tables:
        await tables.set_rates(MIDNIGHT, {"acme": 100.0, "bolt": 1.0})
    clock.advance(WINDOW_SECONDS + 10)
    fresh = FlowKey("mail", "bolt", "send")
    await store.report_endings(Endings({fresh: Count(1, 1)}), ["mail"])
    async with controls(store) as tables:
        await tables.open_breakers([FLOW])
        await tables.prune()

    assert db.execute("SELECT tenant_id FROM jobs_endings").fetchall() == [("bolt",)]
    assert db.execute("SELECT tenant_id FROM jobs_rates").fetchall() == [("acme",)]
    assert db.execute("SELECT tenant_id FROM jobs_breakers").fetchall() == [("acme",)]


async def test_use_cases_do_not_see_each_other(store: JobStore) -> None:
    await store.report_endings(FAILING, ["mail"])
    async with controls(store) as tables:
        await tables.open_breakers([FLOW])
        await tables.set_rates(MIDNIGHT, {"acme": 4.0})
    async with controls(store, "push") as tables:
        await tables.close_breakers([FLOW])
        found = await tables.find_breakers(), await tables.find_failing()
        rates = await tables.find_rates()

    assert (found, rates.ahead_seconds) == (({}, {}), {})
    assert FLOW in await breakers(store)
