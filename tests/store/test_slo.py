"""The SLO record in PostgreSQL: what is added, summed, pruned, and read of the jobs themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg

from async_jobs.core.demand import Step
from async_jobs.core.slo import Histogram, Key, Measure, Promises, Slack, SloRecord, Sums
from async_jobs.core.slo_report import TenantNow
from async_jobs.store.jobs import JobStore

from .factories import MIDNIGHT, RETRIED_AT_ONCE, JobFactory, SettableClock

DAY = 86_400.0


def starts(*slacks_seconds: float, use_case: str = "mail", tenant_id: str = "acme") -> Any:
    """What a process has counted after so many first starts."""
    record = SloRecord(by_tenant=True)
    for seconds in slacks_seconds:
        record.started(use_case, Slack(tenant_id, seconds, 10.0))
    return record.take()


async def started(store: JobStore, window: str, tenant_id: str = "") -> tuple[int, int]:
    sums = await store.slo.sum_windows(["mail"], tenant_id)
    found = sums.get(("mail", Measure.START, window), Sums())
    return found.total, found.late


async def test_counts_of_two_processes_add_up(store: JobStore) -> None:
    await asyncio.gather(
        *(store.slo.add(starts(5.0, -1.0)) for _ in range(10)),
        *(store.slo.add(starts(9.0, tenant_id="bolt")) for _ in range(10)),
    )

    found = (await store.slo.sum_histograms(["mail"], 3_600))["mail", Measure.START]

    assert found == Histogram(30, 10, 130.0, [0, 0, 10, 0, 0, 20, 0])
    assert await started(store, "1h", "acme") == (20, 10)
    assert await started(store, "1h", "bolt") == (10, 0)


async def test_a_window_holds_what_began_in_it(store: JobStore, clock: SettableClock) -> None:
    await store.slo.add(starts(1.0))
    clock.advance(299.0)
    assert await started(store, "5m") == (1, 0)
    clock.advance(1.0)
    assert await started(store, "5m") == (0, 0)

    assert await started(store, "30m") == (1, 0)
    clock.advance(6 * 3_600.0)
    assert [await started(store, window) for window in ("6h", "1d", "3d", "30d")] == [
        (0, 0),
        (1, 0),
        (1, 0),
        (1, 0),
    ]


async def test_a_use_case_or_a_measure_without_counts_is_absent(store: JobStore) -> None:
    await store.slo.add(starts(1.0, use_case="other"))

    assert await store.slo.sum_windows(["mail"]) == {}
    assert await store.slo.sum_histograms(["mail"], 300) == {}


async def test_an_hour_of_counts_is_a_row_for_each_minute_and_one_for_the_hour(
    store: JobStore, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    for _ in range(720):
        await store.slo.add({Key("mail", "", Measure.START): Histogram(1)})
        clock.advance(5.0)

    rows = db.execute(
        "SELECT span_seconds, count(*), sum(total) FROM jobs_slo GROUP BY 1"
    ).fetchall()
    assert sorted(rows) == [(60, 60, 720), (3_600, 1, 720)]


async def test_minutes_are_kept_for_six_hours_and_hours_for_thirty_days(
    store: JobStore, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    def spans() -> list[int]:
        return [
            row[0] for row in db.execute("SELECT DISTINCT span_seconds FROM jobs_slo ORDER BY 1")
        ]

    await store.slo.add(starts(1.0))
    clock.advance(6 * 3_600.0)
    assert await store.slo.prune(100) == 0

    clock.advance(660.0)
    assert await store.slo.prune(100) == 2  # everybody's and the tenant's
    assert spans() == [3_600]

    clock.advance(30 * DAY)
    assert await store.slo.prune(100) == 2
    assert spans() == []


async def test_pruning_goes_in_batches(store: JobStore, clock: SettableClock) -> None:
    for _ in range(5):
        await store.slo.add({Key("mail", "", Measure.START): Histogram(1)})
        clock.advance(60.0)
    clock.advance(7 * 3_600.0)

    assert [await store.slo.prune(2) for _ in range(4)] == [2, 2, 1, 0]


async def test_tenants_are_listed_by_broken_promises(store: JobStore) -> None:
    await store.slo.add(starts(5.0, 5.0, 5.0, tenant_id="good"))
    await store.slo.add(starts(-5.0, 5.0, tenant_id="bad"))

    found = await store.slo.sum_tenants("mail", most=10)

    assert list(found.items()) == [("bad", Promises(2, 1)), ("good", Promises(3, 0))]
    assert list(await store.slo.sum_tenants("mail", most=1)) == ["bad"]


async def test_demand_is_counted_by_time_to_deadline_and_cut_off(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    for tolerance_seconds in (1.0, 5.0, 29.0, 30.0, 30.0, 30.0, 500.0):
        await jobs.waiting(delay_tolerance_seconds=tolerance_seconds)
    await jobs.waiting(run_at=MIDNIGHT + timedelta(seconds=20), delay_tolerance_seconds=1.0)
    await jobs.leased(delay_tolerance_seconds=9.0)
    clock.advance(5.0)

    found = await store.slo.find_demand(["mail", "idle"], edges_seconds=(0, 10, 60, 300), most=3)

    assert found["mail"] == [
        Step(0, 1),
        Step(10, 1),
        Step(60, 3, cut=True),
        Step(300, 0),
    ]
    assert found["idle"] == [Step(edge, 0) for edge in (0, 10, 60, 300)]


async def test_the_pulse_is_what_is_in_flight_and_how_late_the_most_urgent_job_is(
    store: JobStore, jobs: JobFactory, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    await jobs.waiting(delay_tolerance_seconds=10.0)
    await jobs.waiting(delay_tolerance_seconds=40.0)
    await jobs.running()
    await jobs.leased()
    clock.advance(25.0)
    db.execute("INSERT INTO jobs_capacities VALUES ('mail', 3, now(), now())")

    found = await store.slo.find_pulse(["mail", "idle"])

    pulse = found["mail"]
    assert (pulse.in_flight, pulse.lateness_seconds, pulse.lowered_capacity) == (2, 15.0, 3)
    idle = found["idle"]
    assert (idle.in_flight, idle.lateness_seconds, idle.lowered_capacity) == (0, None, None)


async def test_tenants_with_work_are_found_and_what_they_hold(
    store: JobStore, jobs: JobFactory
) -> None:
    for tenant_id in ("both", "both", "waits", "waits too"):
        await jobs.waiting(tenant_id=tenant_id)
    for tenant_id in ("both", "holds", "holds"):
        await jobs.leased(tenant_id=tenant_id)
    await jobs.finished(tenant_id="gone")
    await jobs.waiting(tenant_id="elsewhere", use_case="other")

    def tenant(name: str, held: int, *, waits: bool) -> TenantNow:
        return TenantNow(tenant_id=name, held=held, waits=waits)

    assert await store.slo.find_tenants("mail", most=10) == [
        tenant("holds", 2, waits=False),
        tenant("both", 1, waits=True),
        tenant("waits", 0, waits=True),
        tenant("waits too", 0, waits=True),
    ]
    assert len(await store.slo.find_tenants("mail", most=1)) == 2


async def test_only_the_first_start_of_a_job_is_its_first(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    first = await jobs.running()
    await store.finish([(first, RETRIED_AT_ONCE)])
    clock.advance(1.0)
    second = await jobs.start(await jobs.lease_again(first.id))

    assert (first.is_first_start, second.is_first_start) == (True, False)


async def test_a_start_is_the_first_by_the_databases_clock_too(live_jobs: JobFactory) -> None:
    for _ in range(20):
        assert (await live_jobs.running()).is_first_start


async def test_a_lease_tells_the_slack_of_its_moment(
    jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.waiting(delay_tolerance_seconds=60.0)
    clock.advance(45.5)

    leased = await jobs.lease_again(job.id)

    assert (leased.slack_seconds, leased.tolerance_seconds) == (14.5, 60.0)
