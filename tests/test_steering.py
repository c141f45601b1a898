"""Operators change what runs: it holds on the processes, is written down, and can be taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from moving_parts import PREPARED, Events, open_store, until

from async_jobs import AsyncJobsConfig, JobService, JobStore, steering
from async_jobs.core.overrides import Override
from async_jobs.errors import InvalidJob, QuotaExceeded, UnknownUseCase
from async_jobs.runtime.presence import Presence, present
from async_jobs.steering import steered

JOB: dict[str, Any] = {
    "tenant_id": "acme",
    "use_case": "notifications",
    "type": "send",
    "payload": {},
}


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[JobStore]:
    async with open_store(database) as opened:
        yield opened


@pytest.fixture
def config(database: str) -> AsyncJobsConfig:
    return AsyncJobsConfig(db_dsn=database, db_prepared_statements=PREPARED)


@pytest.fixture
def service(config: AsyncJobsConfig, store: JobStore) -> JobService:
    return JobService(config, store)


class Watched(Presence):
    """A process that notes what it is told."""

    def __init__(self, store: JobStore, name: str = "w1") -> None:
        self.orders: list[Sequence[Override]] = []
        self.stops: list[bool] = []
        super().__init__(
            store.steering,
            name=name,
            role="worker",
            serves=lambda: {"queues": ["q"]},
            stop=lambda: self.stops.append(True),
            steer=self.orders.append,
        )


class TestOverrides:
    async def test_a_capacity_holds_until_it_is_reset(self, service: JobService) -> None:
        assert await service.scale("notifications", 80, actor="ada")
        assert (await service.effective_config()).use_cases["notifications"].max_concurrent == 80

        assert await service.scale("notifications", None, actor="ada")
        assert (await service.effective_config()).use_cases["notifications"].max_concurrent == 10

    async def test_saying_the_same_again_changes_nothing(self, service: JobService) -> None:
        changed = [await service.pause("notifications") for _ in range(2)]
        changed += [await service.resume("notifications") for _ in range(2)]

        assert changed == [True, False, True, False]

    async def test_a_quota_refuses_the_next_enqueue(self, service: JobService) -> None:
        await service.enqueue(**JOB)
        await service.set_quota("acme", max_pending_jobs=1, actor="ada")

        with pytest.raises(QuotaExceeded):
            await service.enqueue(**JOB)

        await service.set_quota("acme", max_pending_jobs=None, actor="ada")
        await service.enqueue(**JOB)

    async def test_what_was_not_set_stays_as_the_environment_says(
        self, service: JobService
    ) -> None:
        await service.set_quota("acme", weight=2.0)
        await service.set_quota("acme", max_concurrent_jobs=5)

        quota = (await service.effective_config()).quota_for("acme")
        assert (quota.weight, quota.max_concurrent_jobs, quota.max_pending_jobs) == (2.0, 5, None)

    @pytest.mark.parametrize(
        "settings", [{"weight": -1.0}, {"burst": 5}, {"wieght": 2.0}, {"max_concurrent_jobs": -1}]
    )
    async def test_a_quota_that_does_not_fit_is_refused_and_not_kept(
        self, service: JobService, settings: dict[str, float]
    ) -> None:
        with pytest.raises(InvalidJob):
            await service.set_quota("acme", **settings)

        assert await service.overrides() == []
        assert await service.audit() == []

    async def test_a_capacity_that_does_not_fit_is_refused(self, service: JobService) -> None:
        for capacity in (0, 100_001):
            with pytest.raises(InvalidJob):
                await service.scale("notifications", capacity)
        with pytest.raises(UnknownUseCase):
            await service.scale("nothing", 5)

    def test_an_override_that_no_longer_fits_has_no_effect(self, config: AsyncJobsConfig) -> None:
        at = datetime.now(UTC)
        lost = [
            Override(
                use_case=use_case,
                tenant_id=tenant_id,
                setting=setting,
                value=value,
                changed_by="ada",
                changed_at=at,
            )
            for use_case, tenant_id, setting, value in (
                ("notifications", "", "capacity", -3),
                ("gone", "", "capacity", 3),
                ("", "acme", "burst", 3),
                ("", "acme", "of_a_later_version", 3),
            )
        ]

        result = steered(config, lost)

        assert (result.use_cases, result.quota_for("acme")) == (
            config.use_cases,
            config.quota_for("acme"),
        )


class TestAudit:
    async def test_each_action_leaves_a_line_with_what_was_there_before(
        self, service: JobService
    ) -> None:
        await service.scale("notifications", 80, actor="ada")
        await service.scale("notifications", 90, actor="bob")
        await service.resume("notifications", actor="bob")

        told = [(one.actor, one.move, one.before, one.after) for one in await service.audit()]
        assert told == [
            ("bob", "resume", None, None),
            ("bob", "scale", {"capacity": 80}, {"capacity": 90}),
            ("ada", "scale", None, {"capacity": 80}),
        ]

    async def test_cancelling_and_requeueing_are_told_if_somebody_did_it(
        self, service: JobService
    ) -> None:
        job = await service.enqueue(**JOB)
        await service.cancel(job.job_id, actor="ada")
        await service.requeue(job.job_id, actor="bob")
        await service.cancel(job.job_id)

        told = [(one.actor, one.move, one.job_id) for one in await service.audit()]
        assert told == [("bob", "requeue", job.job_id), ("ada", "cancel", job.job_id)]
        assert await service.audit(tenant_id="other") == []

    async def test_it_is_read_page_by_page(self, service: JobService) -> None:
        for capacity in range(1, 6):
            await service.scale("notifications", capacity)

        first = await service.audit(limit=3)
        rest = await service.audit(limit=3, before_id=first[-1].id)

        assert [one.after["capacity"] for one in (*first, *rest)] == [5, 4, 3, 2, 1]


class TestPresence:
    async def test_a_process_is_seen_and_goes(self, store: JobStore, service: JobService) -> None:
        process = Watched(store)
        await process.tick()
        [seen] = await service.processes()
        await process.leave()

        assert (seen.name, seen.role, seen.serves) == ("w1", "worker", {"queues": ["q"]})
        assert seen.seen_seconds < 5
        assert await service.processes() == []

    async def test_it_takes_up_what_changed_and_nothing_twice(
        self, store: JobStore, service: JobService
    ) -> None:
        process = Watched(store)
        await process.tick()
        await service.pause("notifications")
        await process.tick()
        await process.tick()
        await service.resume("notifications")
        await process.tick()

        assert [[one.setting for one in told] for told in process.orders] == [["paused"], []]

    async def test_it_is_asked_to_stop_once(self, store: JobStore, service: JobService) -> None:
        process, other = Watched(store), Watched(store, "w2")
        await process.tick()
        await other.tick()

        assert await service.stop_process("w1", actor="ada")
        assert not await service.stop_process("w3", actor="ada")
        await process.tick()
        await process.tick()
        await other.tick()

        assert (process.stops, other.stops) == ([True], [])
        assert [one.after for one in await service.audit()] == [{"process": "w1"}]

    async def test_what_was_told_goes_on_to_hold_without_a_database(
        self, store: JobStore, service: JobService, database: str
    ) -> None:
        await service.scale("notifications", 80)
        await service.effective_config()
        with psycopg.connect(database, autocommit=True) as conn:
            conn.execute("ALTER TABLE jobs_overrides RENAME TO elsewhere")

        steering._known[store.origin].next_read_at = 0.0
        assert (await service.effective_config()).use_cases["notifications"].max_concurrent == 80

    async def test_waking_it_asks_for_orders_at_once(self, store: JobStore) -> None:
        process, events = Watched(store), Events()
        async with present(process, bus=events.bus) as loop:
            await until(lambda: loop.progress_at)
            await store.steering.set_overrides(
                {"paused": True}, actor="ada", move="pause", use_case="notifications"
            )
            loop.wake()
            await until(lambda: process.orders)

        assert await store.steering.find_processes() == []
