"""A pass keeps to rates, open breakers and lowered capacity, and every step is told once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest
from moving_parts import Events
from store.factories import MIDNIGHT, RETRIED_AT_ONCE, SUCCEEDED, JobFactory, SettableClock, new_job

from async_jobs.config import TenantQuota
from async_jobs.core.endings import Count, Endings, FlowKey
from async_jobs.core.outcome import Raised, decide
from async_jobs.models import JobStatus, Leased, StartedJob
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry import events as ev

from .conftest import FakeSender, MakeDispatcher

MAIL = FlowKey("mail", "acme", "send")
PRESSED = Endings(pressed=frozenset({"mail"}))
QUOTAS = {"acme": TenantQuota(rate_per_second=2.0, burst=3)}


@pytest.fixture
def make_dispatcher(make_dispatcher: MakeDispatcher, clock: SettableClock) -> MakeDispatcher:
    """Dispatchers whose own clock goes with the database's."""

    def make(**settings: object) -> Dispatcher:
        def monotonic() -> float:
            return (clock.at - MIDNIGHT).total_seconds()

        return make_dispatcher(monotonic=monotonic, **settings)

    return make


async def wait(store: JobStore, count: int, **fields: object) -> None:
    fields = {"delay_tolerance_seconds": 100_000.0, **fields}
    await store.enqueue([new_job(**fields) for _ in range(count)])


async def finish(store: JobStore, jobs: JobFactory, leased: Sequence[Leased]) -> list[StartedJob]:
    """Start and end *leased* well."""
    started = [await jobs.start(job) for job in leased]
    await store.finish([(job, SUCCEEDED) for job in started])
    return started


def by_tenant(leased: Sequence[Leased]) -> dict[str, int]:
    return dict(Counter(job.tenant_id for job in leased))


class TestRates:
    """`rate_per_second` and `burst`: exact whoever runs the pass."""

    async def test_a_burst_goes_at_once_and_then_so_many_a_second(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 40)
        dispatcher = make_dispatcher(capacity=100, quotas=QUOTAS)
        sent = []
        for _ in range(9):
            await dispatcher.dispatch()
            sent.append(len(sender.sent))
            clock.advance(0.25)

        assert sent == [3, 3, 4, 4, 5, 5, 6, 6, 7]

    async def test_replicas_together_keep_to_the_rate(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 100)
        replicas = [make_dispatcher(capacity=1_000, quotas=QUOTAS) for _ in range(4)]
        for _ in range(20):
            await asyncio.gather(*[each.dispatch() for each in replicas for _ in range(2)])
            clock.advance(0.5)

        assert len(sender.sent) == 3 + 19

    async def test_a_slowed_tenant_does_not_hold_up_the_others(
        self, store: JobStore, make_dispatcher: MakeDispatcher, sender: FakeSender
    ) -> None:
        await wait(store, 50, delay_tolerance_seconds=1.0)
        await wait(store, 5, tenant_id="bolt")

        await make_dispatcher(capacity=10, quotas=QUOTAS).dispatch()
        await make_dispatcher(capacity=10, quotas=QUOTAS).dispatch()

        assert by_tenant(sender.sent) == {"acme": 3, "bolt": 5}

    async def test_everybody_not_named_has_the_rate_of_the_star_for_himself(
        self, store: JobStore, make_dispatcher: MakeDispatcher, sender: FakeSender
    ) -> None:
        for tenant in ("acme", "bolt", "cove"):
            await wait(store, 9, tenant_id=tenant)
        quotas = {"*": TenantQuota(rate_per_second=2.0), "cove": TenantQuota()}

        await make_dispatcher(capacity=100, quotas=quotas).dispatch()

        assert by_tenant(sender.sent) == {"acme": 2, "bolt": 2, "cove": 9}

    async def test_the_pass_comes_back_when_the_next_job_may_go(
        self, store: JobStore, make_dispatcher: MakeDispatcher, clock: SettableClock
    ) -> None:
        await wait(store, 9)
        dispatcher = make_dispatcher(capacity=100, quotas=QUOTAS)

        first = await dispatcher.dispatch()
        clock.advance(0.2)
        second = await dispatcher.dispatch()
        clock.advance(second.wait_seconds)
        third = await dispatcher.dispatch()

        assert first.wait_seconds == pytest.approx(0.5)
        assert second.wait_seconds == pytest.approx(0.3)
        assert (first.sent, second.sent, third.sent) == (3, 0, 1)

    async def test_the_loop_sleeps_no_longer_than_that(
        self, store: JobStore, make_dispatcher: MakeDispatcher, clock: SettableClock
    ) -> None:
        quotas = {"acme": TenantQuota(rate_per_second=0.1)}
        await wait(store, 2)
        dispatcher = make_dispatcher(capacity=100, quotas=quotas, uses_sqs=False)
        await dispatcher.tick()
        clock.advance(1.0)

        assert await dispatcher.tick() == pytest.approx(9.0)

    async def test_tenants_without_a_rate_leave_no_trace(
        self, store: JobStore, make_dispatcher: MakeDispatcher
    ) -> None:
        await wait(store, 3, tenant_id="bolt")

        await make_dispatcher(quotas=QUOTAS).dispatch()

        async with store.take_turn("mail") as turn:
            assert turn is not None
            assert (await turn.controls.find_rates()).ahead_seconds == {}


class TestBreakers:
    """A flow that fails is shut, probed and opened again."""

    async def fail(self, store: JobStore, clock: SettableClock, failed: int = 20) -> None:
        """Report 20 endings, so many of them failures, from a few seconds ago."""
        await store.report_endings(Endings({MAIL: Count(20, failed)}), ["mail"])
        clock.advance(5)

    async def test_a_failing_flow_is_leased_no_more_and_others_are(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await self.fail(store, clock)
        await wait(store, 5, delay_tolerance_seconds=1.0)
        await wait(store, 2, type="call")
        await wait(store, 2, tenant_id="bolt")

        await make_dispatcher().dispatch()
        await make_dispatcher().dispatch()

        flows = Counter((job.tenant_id, job.type) for job in sender.sent)
        assert flows == {("acme", "call"): 2, ("bolt", "send"): 2}
        (opened,) = events.of(ev.BreakerOpened)
        assert (opened.tenant_id, opened.type, opened.ended, opened.failed) == (
            *("acme", "send"),
            *(20, 20),
        )

    async def test_a_flow_that_fails_less_than_half_is_leased_as_ever(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await self.fail(store, clock, failed=9)
        await wait(store, 3)

        await make_dispatcher().dispatch()

        assert len(sender.sent) == 3

    async def test_one_job_of_a_shut_flow_goes_every_30_s_whatever_the_replicas(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 30)
        await self.fail(store, clock)
        replicas = [make_dispatcher(capacity=20) for _ in range(3)]
        sent = []
        for _ in range(13):
            await asyncio.gather(*[each.dispatch() for each in replicas])
            sent.append(len(sender.sent))
            clock.advance(5)

        assert sent == [0] * 6 + [1] * 6 + [2]
        assert [await self._is_probe(jobs, job.job_id) for job in sender.sent] == [True, True]
        assert len(events.of(ev.BreakerProbed)) == 2
        assert len(events.of(ev.BreakerOpened)) == 1

    async def _is_probe(self, jobs: JobFactory, job_id: UUID) -> bool:
        return (await jobs.row(job_id)).probe

    async def test_a_probe_that_works_lets_the_flow_go_again(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 6)
        await self.fail(store, clock)
        dispatcher = make_dispatcher()
        await dispatcher.dispatch()
        clock.advance(30)
        await dispatcher.dispatch()
        (probe,) = await finish(store, jobs, sender.sent)
        assert probe.probe
        await store.report_endings(Endings({MAIL: Count(1, 0, probe_succeeded=True)}), ["mail"])

        await dispatcher.dispatch()
        clock.advance(2)
        await dispatcher.dispatch()

        assert len(sender.sent) == 6
        (closed,) = events.of(ev.BreakerClosed)
        assert (closed.tenant_id, closed.open_seconds) == ("acme", 30.0)

    async def test_the_pass_comes_back_for_the_next_probe(
        self, store: JobStore, make_dispatcher: MakeDispatcher, clock: SettableClock
    ) -> None:
        await wait(store, 6)
        await self.fail(store, clock)
        dispatcher = make_dispatcher()
        await dispatcher.dispatch()
        clock.advance(10)

        assert (await dispatcher.dispatch()).wait_seconds == pytest.approx(20.0)

    async def test_a_probe_that_fails_waits_again_with_the_attempts_it_had(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        job = await jobs.waiting(max_attempts=1)
        await self.fail(store, clock)
        dispatcher = make_dispatcher()
        await dispatcher.dispatch()
        clock.advance(30)
        await dispatcher.dispatch()
        started = await jobs.start(sender.sent[0])
        await store.finish([(started, decide(started, Raised(OSError("down")), random=0.0))])

        row = await jobs.row(job)
        assert (row.status, row.attempts, row.probe) == (JobStatus.PENDING, 0, False)
        assert row.last_error is not None

    async def test_a_probe_that_was_never_sent_is_followed_by_another(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 6)
        await self.fail(store, clock)
        dispatcher = make_dispatcher()
        await dispatcher.dispatch()
        sender.refuses = lambda job: True
        clock.advance(30)
        await dispatcher.dispatch()
        sender.refuses = lambda job: False
        clock.advance(30)
        await dispatcher.dispatch()

        assert len(sender.sent) == 1

    async def test_a_use_case_may_do_without(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await self.fail(store, clock)
        await wait(store, 3)

        await make_dispatcher(breaker="off").dispatch()

        assert len(sender.sent) == 3

    async def test_a_retry_is_shut_with_its_flow(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await jobs.finished(RETRIED_AT_ONCE)
        await self.fail(store, clock)

        await make_dispatcher().dispatch()

        assert sender.sent == []


class TestBackpressure:
    """The capacity falls when handlers ask for it and comes back by itself."""

    async def test_the_capacity_is_lowered_for_all_replicas_and_only_once_in_a_window(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 30)
        await store.report_endings(PRESSED, [])
        for _ in range(3):
            clock.advance(1)
            await store.report_endings(PRESSED, [])
            await make_dispatcher(capacity=10).dispatch()

        assert len(sender.sent) == 7
        assert [(told.capacity, told.full) for told in events.of(ev.CapacityLowered)] == [(7, 10)]

    async def test_it_comes_back_slot_by_slot_and_is_whole_in_the_end(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 30)
        await store.report_endings(PRESSED, [])
        dispatcher = make_dispatcher(capacity=10)
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
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 5)
        dispatcher = make_dispatcher(capacity=2)
        for _ in range(4):
            await store.report_endings(PRESSED, [])
            await dispatcher.dispatch()
            clock.advance(11)

        assert len(sender.sent) == 1

    async def test_a_use_case_of_one_slot_keeps_it_without_a_word(
        self,
        store: JobStore,
        make_dispatcher: MakeDispatcher,
        sender: FakeSender,
        events: Events,
    ) -> None:
        await wait(store, 5)
        await store.report_endings(PRESSED, [])

        await make_dispatcher(capacity=1).dispatch()

        assert events.names() == ["JobsLeased"]


async def test_a_use_case_in_good_health_costs_no_statement(
    store: JobStore, make_dispatcher: MakeDispatcher
) -> None:
    await wait(store, 3)

    async with store.take_turn("mail") as turn:
        assert turn is not None
        assert not turn.controlled


async def test_every_quota_at_once_keeps_the_slots_filled(
    store: JobStore,
    jobs: JobFactory,
    make_dispatcher: MakeDispatcher,
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
    dispatcher = make_dispatcher(capacity=20, quotas=quotas)
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
