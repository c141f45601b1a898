"""Under overload new jobs are refused, but only to tenants above their share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from moving_parts import Events, open_store
from store.factories import SUCCEEDED, JobFactory, SettableClock, new_job

from async_jobs.admission import LEAST_MEASURED
from async_jobs.config import AsyncJobsConfig, TenantQuota, UseCaseConfig
from async_jobs.errors import Overloaded
from async_jobs.models import NewJob
from async_jobs.service import JobService
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.events import OverloadRefused


@pytest.fixture
def database(emptied_database: str) -> str:
    return emptied_database


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest_asyncio.fixture
async def store(database: str, clock: SettableClock) -> AsyncIterator[JobStore]:
    async with open_store(database, clock=clock) as opened:
        yield opened


@pytest.fixture
def events() -> Events:
    return Events()


def service(store: JobStore, events: Events | None = None, **settings: Any) -> JobService:
    """Two slots; settings of the use case, and `quotas`."""
    quotas = settings.pop("quotas", {})
    use_case = UseCaseConfig(name="mail", max_concurrent=2, **settings)
    config = AsyncJobsConfig(
        db_dsn="postgresql://localhost", use_cases={"mail": use_case}, per_tenant_quotas=quotas
    )
    return JobService(config, store, bus=(events or Events()).bus)


def offer(tenant_id: str = "acme", tolerance_seconds: float = 60.0, **more: Any) -> NewJob:
    return NewJob(
        tenant_id=tenant_id,
        use_case="mail",
        type="send",
        payload={},
        delay_tolerance_seconds=tolerance_seconds,
        **more,
    )


async def measure(store: JobStore, clock: SettableClock, runs: int = 12) -> None:
    """Jobs that ran for a second each."""
    jobs = JobFactory(store)
    running = [await jobs.running(tenant_id="past") for _ in range(runs)]
    clock.advance(1)
    await store.finish([(job, SUCCEEDED) for job in running])


async def flood(store: JobStore, clock: SettableClock, *, others: int = 5) -> None:
    """300 jobs of one tenant wait, where its share of one slot does 64 in their tolerance."""
    await measure(store, clock)
    await store.enqueue([new_job() for _ in range(300)])
    await store.enqueue([new_job(tenant_id="bolt") for _ in range(others)])


async def test_a_tenant_above_its_share_is_refused_until_its_share_has_caught_up(
    store: JobStore, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    await flood(store, clock)

    with pytest.raises(Overloaded) as refusal:
        await service(store).enqueue(offer())

    # 301 wait, its one slot does 64 in the tolerance, and one a second of the rest.
    assert refusal.value.retry_after_seconds == pytest.approx(237.0)
    assert (refusal.value.tenant_id, refusal.value.use_case) == ("acme", "mail")


async def test_everybody_else_is_let_in(store: JobStore, clock: SettableClock) -> None:
    await flood(store, clock)

    await service(store).enqueue(offer("bolt"))
    await service(store).enqueue(offer("newcomer"))


async def test_alone_a_tenant_may_be_late_as_it_likes(
    store: JobStore, clock: SettableClock
) -> None:
    await flood(store, clock, others=0)

    await service(store).enqueue(offer())


async def test_a_job_that_can_wait_is_let_in(store: JobStore, clock: SettableClock) -> None:
    await flood(store, clock)

    await service(store).enqueue(offer(tolerance_seconds=3_600.0))


async def test_a_job_for_later_is_let_in(store: JobStore, clock: SettableClock) -> None:
    await flood(store, clock)

    await service(store).enqueue(offer(run_at=datetime.now(UTC) + timedelta(hours=1)))


async def test_patient_jobs_of_the_tenant_do_not_count_against_an_urgent_one(
    store: JobStore, clock: SettableClock
) -> None:
    await measure(store, clock)
    await store.enqueue([new_job(tenant_id="bolt") for _ in range(300)])
    await store.enqueue([new_job(delay_tolerance_seconds=9_000.0) for _ in range(300)])

    await service(store).enqueue(offer())


async def test_above_its_share_a_tenant_is_let_in_while_deadlines_can_be_kept(
    store: JobStore, clock: SettableClock
) -> None:
    """100 jobs are more than its share does in the tolerance, and less than both slots do."""
    await measure(store, clock)
    await store.enqueue([new_job() for _ in range(100)])
    await store.enqueue([new_job(tenant_id="bolt")])

    await service(store).enqueue(offer())


async def test_nobody_is_refused_on_a_guess(store: JobStore, clock: SettableClock) -> None:
    await measure(store, clock, runs=LEAST_MEASURED - 1)
    await store.enqueue([new_job() for _ in range(300)])
    await store.enqueue([new_job(tenant_id="bolt")])

    await service(store).enqueue(offer())


async def test_a_use_case_may_accept_everything(store: JobStore, clock: SettableClock) -> None:
    await flood(store, clock)

    await service(store, overload="accept").enqueue(offer())


async def test_a_heavier_tenant_has_a_larger_share(store: JobStore, clock: SettableClock) -> None:
    await measure(store, clock)
    await store.enqueue([new_job() for _ in range(100)])
    await store.enqueue([new_job(tenant_id="bolt") for _ in range(60)])
    quotas = {"acme": TenantQuota(weight=9.0)}

    with pytest.raises(Overloaded):
        await service(store).enqueue(offer())
    await service(store, quotas=quotas).enqueue(offer())


async def test_a_batch_is_refused_as_a_whole(store: JobStore, clock: SettableClock) -> None:
    await flood(store, clock)
    before = await store.find(tenant_id="fresh")

    with pytest.raises(Overloaded):
        await service(store).enqueue_many([offer("fresh"), offer()])

    assert await store.find(tenant_id="fresh") == before


async def test_refusals_of_a_tenant_are_told_once_in_a_while(
    store: JobStore, clock: SettableClock, events: Events
) -> None:
    await measure(store, clock)
    await store.enqueue([new_job(tenant_id="told") for _ in range(300)])
    await store.enqueue([new_job(tenant_id="bolt")])

    for _ in range(5):
        with pytest.raises(Overloaded):
            await service(store, events).enqueue(offer("told"))

    assert [(told.tenant_id, told.jobs) for told in events.of(OverloadRefused)] == [("told", 1)]


async def test_a_flood_of_enqueues_asks_the_database_a_few_times_only(
    store: JobStore, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1_000.0)
    await flood(store, clock)
    demand = store.demand
    first = await demand.count_due("mail", within_seconds=64.0, most=999, on=None)
    await store.enqueue([new_job()])

    again = await demand.count_due("mail", within_seconds=64.0, most=999, on=None)

    assert (first, again) == (305, 305)
