"""A pass keeps open breakers shut, probes them, and tells every step once."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

import pytest
from moving_parts import Events
from store.factories import RETRIED_AT_ONCE, JobFactory, SettableClock

from async_jobs.core.endings import Count, Endings
from async_jobs.core.outcome import Raised, decide
from async_jobs.models import JobStatus
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry import events as ev

from .conftest import FakeSender, MakeDispatcher
from .ladder_parts import MAIL, finish, wait


class TestBreakers:
    """A flow that fails is shut, probed and opened again."""

    async def fail(self, store: JobStore, clock: SettableClock, failed: int = 20) -> None:
        """Report 20 endings, so many of them failures, from a few seconds ago."""
        await store.report_endings(Endings({MAIL: Count(20, failed)}), ["mail"])
        clock.advance(5)

    async def test_a_failing_flow_is_leased_no_more_and_others_are(
        self,
        store: JobStore,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await self.fail(store, clock)
        await wait(store, 5, delay_tolerance_seconds=1.0)
        await wait(store, 2, type="call")
        await wait(store, 2, tenant_id="bolt")

        await make_clocked_dispatcher().dispatch()
        await make_clocked_dispatcher().dispatch()

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
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await self.fail(store, clock, failed=9)
        await wait(store, 3)

        await make_clocked_dispatcher().dispatch()

        assert len(sender.sent) == 3

    async def test_one_job_of_a_shut_flow_goes_every_30_s_whatever_the_replicas(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 30)
        await self.fail(store, clock)
        replicas = [make_clocked_dispatcher(capacity=20) for _ in range(3)]
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
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
        events: Events,
    ) -> None:
        await wait(store, 6)
        await self.fail(store, clock)
        dispatcher = make_clocked_dispatcher()
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
        self, store: JobStore, make_clocked_dispatcher: MakeDispatcher, clock: SettableClock
    ) -> None:
        await wait(store, 6)
        await self.fail(store, clock)
        dispatcher = make_clocked_dispatcher()
        await dispatcher.dispatch()
        clock.advance(10)

        assert (await dispatcher.dispatch()).wait_seconds == pytest.approx(20.0)

    async def test_a_probe_that_fails_waits_again_with_the_attempts_it_had(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        job = await jobs.waiting(max_attempts=1)
        await self.fail(store, clock)
        dispatcher = make_clocked_dispatcher()
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
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await wait(store, 6)
        await self.fail(store, clock)
        dispatcher = make_clocked_dispatcher()
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
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await self.fail(store, clock)
        await wait(store, 3)

        await make_clocked_dispatcher(breaker="off").dispatch()

        assert len(sender.sent) == 3

    async def test_a_retry_is_shut_with_its_flow(
        self,
        store: JobStore,
        jobs: JobFactory,
        make_clocked_dispatcher: MakeDispatcher,
        sender: FakeSender,
        clock: SettableClock,
    ) -> None:
        await jobs.finished(RETRIED_AT_ONCE)
        await self.fail(store, clock)

        await make_clocked_dispatcher().dispatch()

        assert sender.sent == []
