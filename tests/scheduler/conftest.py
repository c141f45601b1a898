"""A store whose clock stands still, and senders that do as they are told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from moving_parts import Events, open_store
from store.factories import MIDNIGHT, JobFactory, SettableClock

from async_jobs.config import TenantQuota, UseCaseConfig
from async_jobs.core.window import Window
from async_jobs.models import Leased
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.scheduler.loop import Scheduler
from async_jobs.store.jobs import JobStore
from async_jobs.transport.ports import SendReport

DISPATCH_LEASE_SECONDS = 30.0


@dataclass
class FakeSender:
    """Keeps what it is given to send.

    `refuses` says which jobs a queue would not accept, `meanwhile` happens before it answers.
    """

    sent: list[Leased] = field(default_factory=list)
    packs: list[int] = field(default_factory=list)
    waiting: int = 0
    asked: int = 0
    refuses: Callable[[Leased], bool] = lambda job: False
    meanwhile: Callable[[Sequence[Leased]], Awaitable[object]] | None = None

    async def send(self, leased: Sequence[Leased], *, pack: int) -> SendReport:
        if self.meanwhile is not None:
            await self.meanwhile(leased)
        self.packs.append(pack)
        failed = [job for job in leased if self.refuses(job)]
        self.sent += [job for job in leased if job not in failed]
        return SendReport(failed, "Throttled" if failed else "")

    async def depth(self) -> int:
        self.asked += 1
        return self.waiting


MakeDispatcher = Callable[..., Dispatcher]
MakeScheduler = Callable[..., Scheduler]


@pytest.fixture
def database(emptied_database: str) -> str:
    return emptied_database


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest_asyncio.fixture
async def store(database: str, clock: SettableClock) -> AsyncIterator[JobStore]:
    async with open_store(database, size=8, clock=clock) as opened:
        yield opened


@pytest.fixture
def jobs(store: JobStore) -> JobFactory:
    return JobFactory(store)


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def make_dispatcher(store: JobStore, sender: FakeSender, events: Events) -> MakeDispatcher:
    def make(
        use_case: str = "mail",
        *,
        capacity: int = 10,
        quotas: Mapping[str, int | TenantQuota] | None = None,
        window: Window | None = None,
        uses_sqs: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
        **settings: str,
    ) -> Dispatcher:
        url = f"https://sqs.us-east-1.amazonaws.com/1/{use_case}-queue" if uses_sqs else None
        return Dispatcher(
            store,
            sender,
            UseCaseConfig(name=use_case, sqs_queue_url=url, max_concurrent=capacity, **settings),
            quotas={
                tenant: TenantQuota(max_concurrent_jobs=most) if isinstance(most, int) else most
                for tenant, most in (quotas or {}).items()
            },
            dispatch_lease_seconds=DISPATCH_LEASE_SECONDS,
            window=window or Window(capacity, size=capacity),
            monotonic=monotonic,
            bus=events.bus,
        )

    return make


@pytest.fixture
def make_scheduler(
    store: JobStore, make_dispatcher: MakeDispatcher, events: Events
) -> MakeScheduler:
    def make(
        *use_cases: str,
        interval_seconds: float = 3_600.0,
        retention_seconds: float = 0.0,
        capacity: int = 10,
    ) -> Scheduler:
        return Scheduler(
            store,
            [make_dispatcher(name, capacity=capacity) for name in use_cases or ("mail",)],
            interval_seconds=interval_seconds,
            retention_seconds=retention_seconds,
            bus=events.bus,
        )

    return make


@pytest.fixture
def make_clocked_dispatcher(
    make_dispatcher: MakeDispatcher, clock: SettableClock
) -> MakeDispatcher:
    """Dispatchers whose own clock goes with the database's."""

    def make(**settings: object) -> Dispatcher:
        def monotonic() -> float:
            return (clock.at - MIDNIGHT).total_seconds()

        return make_dispatcher(monotonic=monotonic, **settings)

    return make
