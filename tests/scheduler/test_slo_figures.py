"""The figures of the SLO report on jobs that are really leased, started and finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from moving_parts import Events
from store.factories import JobFactory, SettableClock

from async_jobs.config import AsyncJobsConfig, TenantQuota, UseCaseConfig
from async_jobs.core.outcome import Outcome
from async_jobs.core.slo import Alert, Promises, SloRecord
from async_jobs.core.slo_report import UseCaseSlo
from async_jobs.errors import Retry
from async_jobs.models import JobContext, NewJob, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.runtime.slo_writer import SloWriter
from async_jobs.service import JobService
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.slo import SloListener
from async_jobs.worker.attempt import Attempt, Told, started_event

from .conftest import FakeSender, MakeDispatcher

TARGET = 0.9


class Stand:
    """A scheduler and a worker in hand, with the record that listens to both."""

    def __init__(self, store: JobStore, clock: SettableClock, events: Events) -> None:
        self.store, self.clock = store, clock
        self.record = SloRecord(by_tenant=True)
        self.listener = SloListener(self.record)
        self.events = events
        self.heard = 0
        self.bus = Bus(self.listener.hear)
        self.registry = JobRegistry()
        self.registry.handler("send")(self._handle)
        self.fails = False
        self.service = JobService(
            AsyncJobsConfig(
                db_dsn="postgresql://localhost",
                use_cases={
                    "mail": UseCaseConfig(name="mail", max_concurrent=10, slo_target=TARGET)
                },
                per_tenant_quotas={"acme": TenantQuota(weight=4.0)},
            ),
            store,
        )

    async def _handle(self, ctx: JobContext, payload: Mapping[str, Any]) -> None:
        if self.fails:
            raise Retry(0.0)

    async def start(self, sender: FakeSender, jobs: JobFactory) -> list[StartedJob]:
        started = [await jobs.start(leased) for leased in sender.sent]
        sender.sent.clear()
        for job in started:
            self.bus.emit(started_event(job))
        return started

    async def run(self, started: Sequence[StartedJob]) -> None:
        for job in started:
            ended: list[tuple[StartedJob, Outcome, Told]] = []
            await Attempt(
                job,
                self.registry,
                lambda *end, ended=ended: ended.append(end),
                enqueuer=self._no_enqueue,
                bus=self.bus,
            ).run()
            for one, outcome, told in ended:
                told(bool(await self.store.finish([(one, outcome)])))

    async def _no_enqueue(self, new: NewJob) -> Any:
        raise AssertionError("no handler of these tests enqueues")

    async def slo(self, **asked: Any) -> UseCaseSlo:
        """The report after everything counted was written."""
        for event in self.events.seen[self.heard :]:
            self.listener.hear(event)
        self.heard = len(self.events.seen)
        await SloWriter(self.record, self.store.slo).tick()
        return (await self.service.slo("mail", **asked))[0]


@pytest.fixture
def stand(store: JobStore, clock: SettableClock, events: Events) -> Stand:
    return Stand(store, clock, events)


async def test_slack_is_recorded_from_lease_to_end(
    stand: Stand,
    jobs: JobFactory,
    clock: SettableClock,
    sender: FakeSender,
    make_dispatcher: MakeDispatcher,
) -> None:
    for tolerance_seconds in (100.0, 30.0, 10.0):
        await jobs.waiting(delay_tolerance_seconds=tolerance_seconds)
    clock.advance(9.0)
    await make_dispatcher().dispatch()
    clock.advance(2.0)
    await stand.run(await stand.start(sender, jobs))

    slo = await stand.slo()

    assert slo.last_hour == slo.last_day == Promises(started=3, late=1)
    buckets = {name: list(each.buckets) for name, each in slo.histograms.items()}
    # At the lease 91 of 100 s, 21 of 30 s and 1 of 10 s are left, at the start 2 s less of each.
    assert buckets["lease"] == [0, 0, 0, 1, 0, 2, 0]
    assert buckets["start"] == [0, 0, 1, 0, 0, 2, 0]
    assert buckets["end"][3:] == [0, 0, 2, 0]
    assert buckets["lateness"] == [0, 0, 1, 0, 0, 0, 0]
    assert slo.histograms["lateness"].mean_seconds == pytest.approx(1.0)
    assert sum(buckets["run"]) == 3


async def test_a_retry_neither_breaks_nor_keeps_a_promise(
    stand: Stand,
    jobs: JobFactory,
    clock: SettableClock,
    sender: FakeSender,
    make_dispatcher: MakeDispatcher,
) -> None:
    await jobs.waiting(delay_tolerance_seconds=10.0, max_attempts=2)
    stand.fails = True
    for _ in range(2):
        await make_dispatcher().dispatch()
        await stand.run(await stand.start(sender, jobs))
        clock.advance(60.0)

    slo = await stand.slo()

    assert slo.last_hour == Promises(started=1, late=0)
    assert slo.histograms["lease"].total == 2
    assert slo.histograms["run"].total == 2
    assert slo.histograms["end"].total == 1


async def test_broken_promises_burn_the_budget_and_call_somebody(
    stand: Stand,
    jobs: JobFactory,
    clock: SettableClock,
    sender: FakeSender,
    make_dispatcher: MakeDispatcher,
) -> None:
    for tolerance_seconds in (1.0, 1.0, 60.0, 60.0):
        await jobs.waiting(delay_tolerance_seconds=tolerance_seconds)
    clock.advance(5.0)
    await make_dispatcher().dispatch()
    await stand.start(sender, jobs)

    slo = await stand.slo()

    assert slo.last_hour.kept_share == pytest.approx(0.5)
    assert slo.burn_rates == pytest.approx({"5m": 5.0, "1h": 5.0, "6h": 5.0, "3d": 5.0})
    assert slo.budget_left == pytest.approx(-4.0)
    assert slo.alert is Alert.TICKET


async def test_the_present_is_read_from_the_jobs_themselves(
    stand: Stand, jobs: JobFactory, clock: SettableClock
) -> None:
    for _ in range(3):
        await jobs.waiting(delay_tolerance_seconds=10.0, tenant_id="acme")
    for _ in range(30):
        await jobs.waiting(delay_tolerance_seconds=45.0, tenant_id="bolt")
    await jobs.leased(tenant_id="acme", delay_tolerance_seconds=500.0)
    clock.advance(25.0)

    slo = await stand.slo(tenants=True)

    assert (slo.late_now, slo.late_now_cut, slo.oldest_late_seconds) == (3, False, 15.0)
    assert (slo.in_flight, slo.capacity) == (1, 10)
    assert slo.mean_run_seconds is None
    # 31 runs of a second (assumed) until 30 s from now and the second that the last one takes.
    assert (slo.required_slots, slo.required_slots_cut) == (1, False)
    assert [(each.tenant_id, each.held, each.waits) for each in slo.tenants] == [
        ("acme", 1, True),
        ("bolt", 0, True),
    ]
    assert [each.share for each in slo.tenants] == pytest.approx([8.0, 2.0])
    assert slo.fairness_held == pytest.approx(0.5)


async def test_a_tenant_can_be_asked_for_alone(
    stand: Stand,
    jobs: JobFactory,
    clock: SettableClock,
    sender: FakeSender,
    make_dispatcher: MakeDispatcher,
) -> None:
    await jobs.waiting(delay_tolerance_seconds=1.0, tenant_id="acme")
    await jobs.waiting(delay_tolerance_seconds=60.0, tenant_id="bolt")
    clock.advance(5.0)
    await make_dispatcher().dispatch()
    await stand.start(sender, jobs)

    everybody, acme, bolt = (
        await stand.slo(tenants=True),
        await stand.slo(tenant_id="acme"),
        await stand.slo(tenant_id="bolt"),
    )

    assert (everybody.tenant_id, acme.tenant_id) == (None, "acme")
    assert everybody.last_day == Promises(2, 1)
    assert (acme.last_day, bolt.last_day) == (Promises(1, 1), Promises(1, 0))
    assert {each.tenant_id: each.last_day for each in everybody.tenants} == {
        "acme": Promises(1, 1),
        "bolt": Promises(1, 0),
    }
    assert everybody.fairness_kept == pytest.approx(0.5)


async def test_a_job_that_is_dropped_for_being_late_broke_its_promise(
    stand: Stand, jobs: JobFactory, clock: SettableClock, make_dispatcher: MakeDispatcher
) -> None:
    await jobs.waiting(delay_tolerance_seconds=10.0)
    clock.advance(40.0)
    await make_dispatcher(on_late="drop").dispatch()

    slo = await stand.slo()

    assert slo.last_hour == Promises(started=1, late=1)
    assert slo.histograms["lateness"].mean_seconds == pytest.approx(30.0)
    assert (slo.histograms["end"].total, slo.histograms["run"].total) == (1, 0)
