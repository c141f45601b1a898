"""Each cause is made to happen with real passes of a scheduler, and explain names it first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from store.factories import BURIED, MIDNIGHT, RETRIED, RETRIED_AT_ONCE, JobFactory, SettableClock

from async_jobs import JobService
from async_jobs.config import AsyncJobsConfig, TenantQuota, UseCaseConfig
from async_jobs.core.endings import Count, Endings, FlowKey
from async_jobs.core.explain import GONE_AFTER_SECONDS, Explanation
from async_jobs.errors import JobNotFound
from async_jobs.steering import paused_by, steered
from async_jobs.store.jobs import JobStore

from .conftest import FakeSender, MakeDispatcher, MakeScheduler

QUOTAS = {
    "narrow": TenantQuota(max_concurrent_jobs=1),
    "slow": TenantQuota(rate_per_second=0.1),
}


def config(**more: Any) -> AsyncJobsConfig:
    return AsyncJobsConfig(
        db_dsn="postgresql://nobody@127.0.0.1:1/none",
        use_cases={"mail": UseCaseConfig(name="mail", max_concurrent=3)},
        per_tenant_quotas=QUOTAS,
        **more,
    )


@pytest.fixture
def service(store: JobStore) -> JobService:
    return JobService(config(), store)


@pytest_asyncio.fixture
async def everybody_is_there(store: JobStore) -> AsyncIterator[None]:
    await alive(store, "scheduler", use_cases=["mail"])
    await alive(store, "worker", queues=["mail-queue"], types=["send"])
    yield


async def alive(store: JobStore, role: str, **serves: Sequence[str]) -> None:
    await store.steering.report_alive(
        f"{role}-1", role=role, version="1", up_seconds=5.0, serves=serves
    )


def codes(found: Explanation) -> list[str]:
    return [cause.code for cause in found.causes]


def figures(found: Explanation, code: str) -> Mapping[str, object]:
    return next(cause.figures for cause in found.causes if cause.code == code)


@pytest.mark.usefixtures("everybody_is_there")
class TestWaiting:
    async def test_nothing_in_the_way_means_next(
        self, jobs: JobFactory, service: JobService
    ) -> None:
        job = await jobs.waiting()

        found = await service.explain(job.id)

        assert (found.state, codes(found)) == ("waiting", ["next"])

    async def test_full_capacity_names_who_holds_it(
        self, jobs: JobFactory, service: JobService, make_dispatcher: MakeDispatcher
    ) -> None:
        for tenant in ("big", "big", "small"):
            await jobs.waiting(tenant_id=tenant)
        dispatcher = make_dispatcher(capacity=3)
        await dispatcher.dispatch()
        job = await jobs.waiting()
        assert (await dispatcher.dispatch()).sent == 0

        found = await service.explain(job.id)

        assert codes(found) == ["capacity_full"]
        assert figures(found, "capacity_full")["held_by"] == "big 2, small 1"
        assert "3 jobs in flight" in found.summary
        hidden = found.for_tenant()
        assert "big" not in hidden.summary
        assert "held_by" not in hidden.causes[0].figures

    async def test_a_full_quota_of_the_tenant(
        self, jobs: JobFactory, service: JobService, make_dispatcher: MakeDispatcher
    ) -> None:
        dispatcher = make_dispatcher(capacity=3, quotas=QUOTAS)
        await jobs.waiting(tenant_id="narrow")
        await dispatcher.dispatch()
        job = await jobs.waiting(tenant_id="narrow")
        assert (await dispatcher.dispatch()).sent == 0

        found = await service.explain(job.id)

        assert codes(found) == ["tenant_quota"]
        assert figures(found, "tenant_quota") == {"tenant_in_flight": 1, "quota": 1}

    async def test_a_rate_that_is_used_up(
        self, jobs: JobFactory, service: JobService, make_dispatcher: MakeDispatcher
    ) -> None:
        dispatcher = make_dispatcher(capacity=3, quotas=QUOTAS)
        await jobs.waiting(tenant_id="slow")
        await dispatcher.dispatch()
        job = await jobs.waiting(tenant_id="slow")
        assert (await dispatcher.dispatch()).sent == 0

        found = await service.explain(job.id)

        assert codes(found) == ["rate"]
        assert figures(found, "rate")["wait_seconds"] == pytest.approx(10.0)

    async def test_an_open_breaker(
        self,
        jobs: JobFactory,
        store: JobStore,
        clock: SettableClock,
        service: JobService,
        make_dispatcher: MakeDispatcher,
    ) -> None:
        flow = FlowKey("mail", "acme", "send")
        await store.report_endings(Endings({flow: Count(20, 20)}), ["mail"])
        clock.advance(4)
        job = await jobs.waiting()
        assert (await make_dispatcher(capacity=3).dispatch()).sent == 0
        clock.advance(10)

        found = await service.explain(job.id)

        assert codes(found) == ["breaker"]
        assert figures(found, "breaker") == {"open_seconds": 10.0, "probe_in_seconds": 20.0}

    async def test_capacity_that_backpressure_has_lowered(
        self, jobs: JobFactory, store: JobStore, service: JobService
    ) -> None:
        await store.report_endings(Endings({}, {"mail"}), ["mail"])
        async with store.take_turn("mail") as turn:
            assert turn is not None
            await turn.controls.set_capacity(1, moved_seconds=0)
        await jobs.leased()
        job = await jobs.waiting()

        found = await service.explain(job.id)

        assert codes(found) == ["capacity_lowered"]
        assert figures(found, "capacity_lowered")["configured_capacity"] == 3

    async def test_jobs_with_earlier_deadlines_are_counted(
        self, jobs: JobFactory, service: JobService
    ) -> None:
        job = await jobs.waiting(delay_tolerance_seconds=60)
        await jobs.waiting(delay_tolerance_seconds=61)
        await jobs.waiting(delay_tolerance_seconds=60, priority=1)
        for _ in range(2):
            await jobs.waiting(delay_tolerance_seconds=10)

        found = await service.explain(job.id)

        assert codes(found) == ["behind"]
        assert figures(found, "behind") == {"ahead": 3, "ahead_cut": False}

    async def test_a_late_job_is_told_what_late_jobs_get(
        self, jobs: JobFactory, service: JobService, clock: SettableClock
    ) -> None:
        job = await jobs.waiting(delay_tolerance_seconds=60)
        clock.advance(65)
        await alive(jobs.store, "scheduler", use_cases=["mail"])
        await alive(jobs.store, "worker", queues=["mail-queue"], types=["send"])

        found = await service.explain(job.id)

        assert codes(found) == ["late"]
        assert figures(found, "late") == {"late_by_seconds": 5.0}

    async def test_a_retry_that_its_budget_holds_back_under_pressure(
        self,
        jobs: JobFactory,
        service: JobService,
        clock: SettableClock,
        sender: FakeSender,
        make_dispatcher: MakeDispatcher,
    ) -> None:
        retry = await jobs.finished(RETRIED_AT_ONCE, delay_tolerance_seconds=60)
        await jobs.waiting(delay_tolerance_seconds=1)
        clock.advance(5)
        firsts = [await jobs.waiting(delay_tolerance_seconds=600) for _ in range(4)]

        await make_dispatcher(capacity=3).dispatch()
        found = await service.explain(retry.id)

        sent = {job.job_id for job in sender.sent}
        assert retry.id not in sent
        assert len(sent & {job.id for job in firsts}) >= 2, "they are due later than the retry"
        assert codes(found)[-1] == "retry_budget"
        assert "retries get a tenth" in found.causes[-1].text

    async def test_a_queue_that_did_not_accept_it(
        self,
        jobs: JobFactory,
        service: JobService,
        sender: FakeSender,
        make_dispatcher: MakeDispatcher,
    ) -> None:
        sender.refuses = lambda job: True
        job = await jobs.waiting()
        assert (await make_dispatcher(capacity=3).dispatch()).failed == 1

        found = await service.explain(job.id)

        assert codes(found) == ["send_failed"]


@pytest.mark.usefixtures("everybody_is_there")
class TestOtherStates:
    async def test_not_due(self, jobs: JobFactory, service: JobService) -> None:
        job = await jobs.waiting(run_at=MIDNIGHT + timedelta(minutes=5))

        found = await service.explain(job.id)

        assert (found.state, codes(found)) == ("scheduled", ["not_due"])
        assert found.summary == "It is not due for another 5 min."

    async def test_backoff_after_a_failed_attempt(
        self, jobs: JobFactory, service: JobService
    ) -> None:
        job = await jobs.finished(RETRIED)

        found = await service.explain(job.id)

        assert (found.state, codes(found)) == ("scheduled", ["backoff"])
        assert found.summary == "Attempt 1 of 3 failed; its backoff ends in 40 s."

    async def test_on_its_way_since(
        self, jobs: JobFactory, service: JobService, clock: SettableClock
    ) -> None:
        job = await jobs.leased()
        clock.advance(12)

        found = await service.explain(job.job_id)

        assert (found.state, codes(found)) == ("leased", ["on_its_way"])
        assert figures(found, "on_its_way") == {"leased_seconds": 12.0, "lease_left_seconds": 18.0}

    async def test_running_in_which_worker(self, jobs: JobFactory, service: JobService) -> None:
        job = await jobs.running()

        found = await service.explain(job.id)

        assert (found.state, codes(found)) == ("running", ["running"])
        assert "worker-1, attempt 1 of 3" in found.summary

    async def test_running_with_a_lease_that_ran_out_and_asked_to_end(
        self, jobs: JobFactory, service: JobService, clock: SettableClock
    ) -> None:
        job = await jobs.running()
        await service.cancel(job.id)
        clock.advance(31)

        found = await service.explain(job.id)

        assert codes(found) == ["lease_ran_out", "running", "cancel_asked"]

    async def test_finished_says_how(self, jobs: JobFactory, service: JobService) -> None:
        job = await jobs.finished(BURIED)

        found = await service.explain(job.id)

        assert (found.state, codes(found)) == ("dead", ["dead"])


class TestNobodyThere:
    async def test_no_scheduler_and_no_worker(self, jobs: JobFactory, service: JobService) -> None:
        job = await jobs.waiting()

        assert codes(await service.explain(job.id)) == ["no_scheduler", "no_worker"]

    async def test_processes_that_were_not_seen_for_a_while_count_as_gone(
        self, jobs: JobFactory, service: JobService, clock: SettableClock, everybody_is_there: None
    ) -> None:
        job = await jobs.waiting(delay_tolerance_seconds=3_600)
        clock.advance(GONE_AFTER_SECONDS)

        assert codes(await service.explain(job.id)) == ["no_scheduler", "no_worker"]

    async def test_no_worker_has_a_handler_for_the_type(
        self, jobs: JobFactory, service: JobService, everybody_is_there: None
    ) -> None:
        job = await jobs.waiting(type="rare")

        found = await service.explain(job.id)

        assert codes(found) == ["no_worker_for_type"]

    async def test_a_worker_of_another_queue_does_not_count(
        self, jobs: JobFactory, service: JobService, everybody_is_there: None
    ) -> None:
        job = await jobs.leased(queue="other-queue")

        assert codes(await service.explain(job.job_id)) == ["on_its_way", "no_worker"]


async def test_no_job_of_another_tenant_is_explained(jobs: JobFactory, service: JobService) -> None:
    job = await jobs.waiting()

    for job_id, tenant in ((job.id, "another"), (uuid4(), None)):
        with pytest.raises(JobNotFound):
            await service.explain(job_id, tenant_id=tenant)


@pytest.mark.usefixtures("everybody_is_there")
async def test_a_paused_use_case_leases_nothing_until_it_is_resumed(
    jobs: JobFactory,
    store: JobStore,
    service: JobService,
    make_scheduler: MakeScheduler,
) -> None:
    scheduler = make_scheduler("mail")
    job = await jobs.waiting()

    async def take_orders() -> None:
        overrides = await store.steering.find_overrides()
        scheduler.steer(steered(config(), overrides), paused_by(overrides))

    assert await service.pause("mail", actor="ada")
    await take_orders()
    assert (await scheduler.tick()).sent == 0
    found = await service.explain(job.id)
    assert codes(found) == ["paused"]
    assert "paused by ada" in found.summary

    assert await service.resume("mail", actor="ada")
    await take_orders()
    assert (await scheduler.tick()).sent == 1
