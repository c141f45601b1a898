"""A pass keeps to rates and lowered capacity, and every step is told once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from moving_parts import Events
from store.factories import JobFactory, SettableClock

from async_jobs.config import TenantQuota
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry import events as ev

from .conftest import FakeSender, MakeDispatcher
from .ladder_parts import PRESSED, QUOTAS, by_tenant, finish, wait


class TestRates:
    """`rate_per_second` and `burst`: exact whoever runs the pass."""

    async def test_a_burst_goes_at_once_and_then_so_many_a_second(
        self,
        store: JobStore,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 40)
        dispatcher = make_clocked_dispatcher(capacity=100, quotas=QUOTAS)
        sent = []
        for _ in range(9):
            await dispatcher.dispatch()
            sent.append(len(sender.sent))
            clock.advance(0.25)

        assert sent == [3, 3, 4, 4, 5, 5, 6, 6, 7]

    async def test_replicas_together_keep_to_the_rate(
        self,
        store: JobStore,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 100)
        replicas = [make_clocked_dispatcher(capacity=1_000, quotas=QUOTAS) for _ in range(4)]
        for _ in range(20):
            await asyncio.gather(*[each.dispatch() for each in replicas for _ in range(2)])
            clock.advance(0.5)

        assert len(sender.sent) == 3 + 19

    async def test_a_slowed_tenant_does_not_hold_up_the_others(
        self, store: JobStore, make_clocked_dispatcher: MakeDispatcher, sender: FakeSender
    ) -> None:
        await wait(store, 50, delay_tolerance_seconds=1.0)
        await wait(store, 5, tenant_id="bolt")

        await make_clocked_dispatcher(capacity=10, quotas=QUOTAS).dispatch()
        await make_clocked_dispatcher(capacity=10, quotas=QUOTAS).dispatch()

        assert by_tenant(sender.sent) == {"acme": 3, "bolt": 5}

    async def test_everybody_not_named_has_the_rate_of_the_star_for_himself(
        self, store: JobStore, make_clocked_dispatcher: MakeDispatcher, sender: FakeSender
    ) -> None:
        for tenant in ("acme", "bolt", "cove"):
            await wait(store, 9, tenant_id=tenant)
        quotas = {"*": TenantQuota(rate_per_second=2.0), "cove": TenantQuota()}

        await make_clocked_dispatcher(capacity=100, quotas=quotas).dispatch()

        assert by_tenant(sender.sent) == {"acme": 2, "bolt": 2, "cove": 9}

    async def test_the_pass_comes_back_when_the_next_job_may_go(
        self, store: JobStore, make_clocked_dispatcher: MakeDispatcher, clock: SettableClock
    ) -> None:
        await wait(store, 9)
        dispatcher = make_clocked_dispatcher(capacity=100, quotas=QUOTAS)

        first = await dispatcher.dispatch()
        clock.advance(0.2)
        second = await dispatcher.dispatch()
        clock.advance(second.wait_seconds)
        third = await dispatcher.dispatch()

        assert first.wait_seconds == pytest.approx(0.5)
        assert second.wait_seconds == pytest.approx(0.3)
        assert (first.sent, second.sent, third.sent) == (3, 0, 1)

    async def test_the_loop_sleeps_no_longer_than_that(
        self, store: JobStore, make_clocked_dispatcher: MakeDispatcher, clock: SettableClock
    ) -> None:
        quotas = {"acme": TenantQuota(rate_per_second=0.1)}
        await wait(store, 2)
        dispatcher = make_clocked_dispatcher(capacity=100, quotas=quotas, uses_sqs=False)
        await dispatcher.tick()
        clock.advance(1.0)

        assert await dispatcher.tick() == pytest.approx(9.0)

    async def test_tenants_without_a_rate_leave_no_trace(
        self, store: JobStore, make_clocked_dispatcher: MakeDispatcher
    ) -> None:
        await wait(store, 3, tenant_id="bolt")

        await make_clocked_dispatcher(quotas=QUOTAS).dispatch()

        async with store.take_turn("mail") as turn:
            assert turn is not None
            assert (await turn.controls.find_rates()).ahead_seconds == {}


class TestBackpressure:
    """The capacity falls when handlers ask for it and comes back by itself."""

    async def test_the_capacity_is_lowered_for_all_replicas_and_only_once_in_a_window(
        self,
        store: JobStore,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 30)
        await store.report_endings(PRESSED, [])
        for _ in range(3):
            clock.advance(1)
            await store.report_endings(PRESSED, [])
            await make_clocked_dispatcher(capacity=10).dispatch()

        assert len(sender.sent) == 7
        assert [(told.capacity, told.full) for told in events.of(ev.CapacityLowered)] == [(7, 10)]

    async def test_it_comes_back_slot_by_slot_and_is_whole_in_the_end(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 30)
        await store.report_endings(PRESSED, [])
        dispatcher = make_clocked_dispatcher(capacity=10)
        sent = [0]
        for _ in range(5):
            await dispatcher.dispatch()
            for job in sender.sent[sent[-1] :]:
                await jobs.start(job)
            sent.append(len(sender.sent))
            clock.advance(10.0)

        assert sent == [0, 7, 8, 9, 10, 10]
        assert [told.capacity for told in events.of(ev.CapacityRestored)] == [10]
        async with store.take_turn("mail") as turn:
            assert turn is not None
            assert not turn.controlled

    async def test_one_job_at_a_time_is_the_least(
        self,
        store: JobStore,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 5)
        dispatcher = make_clocked_dispatcher(capacity=2)
        for _ in range(4):
            await store.report_endings(PRESSED, [])
            await dispatcher.dispatch()
            clock.advance(11)

        assert len(sender.sent) == 1

    async def test_a_use_case_of_one_slot_keeps_it_without_a_word(
        self,
        store: JobStore,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        events: Events,
    ) -> None:
        await wait(store, 5)
        await store.report_endings(PRESSED, [])

        await make_clocked_dispatcher(capacity=1).dispatch()

        assert events.names() == ["JobsLeased"]


async def test_a_use_case_in_good_health_costs_no_statement(
    store: JobStore, make_clocked_dispatcher: MakeDispatcher
) -> None:
    await wait(store, 3)

    async with store.take_turn("mail") as turn:
        assert turn is not None
        assert not turn.controlled


async def test_every_quota_at_once_keeps_the_slots_filled(
    store: JobStore,
    jobs: JobFactory,
    make_clocked_dispatcher: MakeDispatcher,
    sender: FakeSender,
    clock: SettableClock,
) -> None:
    """Quotas that bind some tenants leave their slots to the others, to the last one."""
    quotas = {
        "acme": TenantQuota(max_concurrent_jobs=3, weight=2.0),
        "bolt": TenantQuota(rate_per_second=4.0, burst=2),
        "cove": TenantQuota(max_concurrent_jobs=5, rate_per_second=50.0, max_pending_jobs=10**6),
        "*": TenantQuota(max_concurrent_jobs=20, rate_per_second=100.0, weight=0.5),
    }
    for tenant in ("acme", "bolt", "cove", "dune", "elm"):
        await wait(store, 400, tenant_id=tenant)
    dispatcher = make_clocked_dispatcher(capacity=20, quotas=quotas)
    most_held: Counter[str] = Counter()
    done = 0
    for _ in range(40):
        await dispatcher.dispatch()
        most_held |= Counter(job.tenant_id for job in sender.sent[done:])
        clock.advance(0.25)
        await finish(store, jobs, sender.sent[done:])
        done = len(sender.sent)

    assert done >= 0.95 * 40 * 20
    assert (most_held["acme"], most_held["bolt"], most_held["cove"]) == (3, 2, 5)
    assert by_tenant(sender.sent)["bolt"] == 2 + 39
