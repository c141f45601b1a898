"""What a worker needs, with a desk that keeps outcomes in memory, or with the real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from moving_parts import Events, open_store, started_job
from store.factories import JobFactory

from async_jobs.core.endings import Endings, FlowKey
from async_jobs.core.outcome import Outcome
from async_jobs.errors import StoreUnavailable
from async_jobs.models import Enqueued, JobContext, NewJob, StartedJob, new_job_id
from async_jobs.registry import JobRegistry
from async_jobs.store.jobs import JobStore
from async_jobs.worker import recorder as recorder_module
from async_jobs.worker import worker as worker_module
from async_jobs.worker.attempt import Attempt
from async_jobs.worker.worker import Worker

MakeAttempt = Callable[..., Attempt]
MakeWorker = Callable[..., Worker]


@dataclass
class FakeDesk:
    """Keeps what is recorded; `away` and `refused` say how the database misbehaves."""

    batches: list[list[StartedJob]] = field(default_factory=list)
    outcomes: dict[UUID, Outcome] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    away: bool = False
    refused: set[UUID] = field(default_factory=set)
    lost: set[UUID] = field(default_factory=set)
    tries: int = 0
    reports: list[Endings] = field(default_factory=list)
    watched: set[FlowKey] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def finish(self, ended: Sequence[tuple[StartedJob, Outcome]]) -> set[UUID]:
        self.tries += 1
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable("away")
        if any(job.id in self.refused for job, _ in ended):
            raise ValueError("refused by the database")
        self.batches.append([job for job, _ in ended])
        self.outcomes |= {job.id: outcome for job, outcome in ended if job.id not in self.lost}
        return {job.id for job, _ in ended} - self.lost

    async def hint(self, topics: Sequence[str]) -> None:
        self.hints += topics

    async def report_endings(self, endings: Endings, use_cases: Iterable[str]) -> set[FlowKey]:
        if self.away:
            raise StoreUnavailable("away")
        self.reports.append(endings)
        return self.watched


@dataclass
class FakeKeeper:
    """Renews what it is asked to, but for what is `lost`; `away` is a database that is away."""

    lost: set[UUID] = field(default_factory=set)
    cancelled: set[UUID] = field(default_factory=set)
    away: bool = False
    beats: list[dict[UUID, int]] = field(default_factory=list)
    closed: bool = False

    def extend(self, held: Mapping[UUID, int], *, lease_seconds: float) -> dict[UUID, bool]:
        self.beats.append(dict(held))
        if self.away:
            raise StoreUnavailable("away")
        return {job_id: job_id in self.cancelled for job_id in held if job_id not in self.lost}

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeReceiver:
    """Gives the jobs put into it; a `wait` ends when there are some, or after `poll_seconds`."""

    poll_seconds: float = 0.02
    jobs: list[StartedJob] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    handed_back: int = 0
    closed: bool = False
    waiting: int = 0
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, *jobs: StartedJob) -> None:
        self.jobs += jobs
        self.bell.set()

    async def wait(self, slots: int) -> None:
        self.waiting += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(self.poll_seconds):
                await self.bell.wait()
        self.waiting -= 1

    async def start(self, slots: int) -> list[StartedJob]:
        self.asked.append(slots)
        started, self.jobs = self.jobs[:slots], self.jobs[slots:]
        if not self.jobs:
            self.bell.clear()
        return started

    async def hand_back(self) -> None:
        self.handed_back += 1

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeEnqueuer:
    enqueued: list[NewJob] = field(default_factory=list)

    async def __call__(self, new: NewJob) -> Enqueued:
        self.enqueued.append(new)
        return Enqueued(new_job_id())


@pytest.fixture
def database(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[JobStore]:
    async with open_store(database) as opened:
        yield opened


@pytest.fixture
def jobs(store: JobStore) -> JobFactory:
    return JobFactory(store)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def keeper() -> FakeKeeper:
    return FakeKeeper()


@pytest.fixture
def receiver() -> FakeReceiver:
    return FakeReceiver()


@pytest.fixture
def registry() -> JobRegistry:
    return JobRegistry()


@pytest.fixture
def enqueuer() -> FakeEnqueuer:
    return FakeEnqueuer()


@dataclass
class Record:
    """Keeps the outcome; `takes_effect` False stands for a lost lease."""

    takes_effect: bool = True
    outcomes: list[Outcome] = field(default_factory=list)

    def __call__(self, job: StartedJob, outcome: Outcome, told: Callable[[bool], None]) -> None:
        self.outcomes.append(outcome)
        told(self.takes_effect)


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def make_attempt(
    registry: JobRegistry, record: Record, enqueuer: FakeEnqueuer, events: Events
) -> MakeAttempt:
    def make(handler: Callable[..., object] | None = None, **job: Any) -> Attempt:
        timeout_seconds = job.pop("timeout_seconds", None)
        job["timeout_seconds"] = job.pop("job_timeout_seconds", None)
        if handler is not None:
            registry.handler("send", timeout_seconds=timeout_seconds)(handler)
        return Attempt(started_job(**job), registry, record, enqueuer=enqueuer, bus=events.bus)

    return make


async def outcome_of(attempt: Attempt) -> Outcome | None:
    """Run *attempt*; what was recorded."""
    await attempt.run()
    return attempt.outcome


@pytest.fixture
def make_worker(
    desk: FakeDesk,
    keeper: FakeKeeper,
    receiver: FakeReceiver,
    registry: JobRegistry,
    enqueuer: FakeEnqueuer,
    events: Events,
) -> MakeWorker:
    def make(
        *more: FakeReceiver, concurrency: int = 5, lease_seconds: float = 600.0, beat: float = 0.01
    ) -> Worker:
        return Worker(
            "ada",
            desk,
            keeper,
            [receiver, *more],
            registry,
            concurrency=concurrency,
            lease_seconds=lease_seconds,
            heartbeat_interval_seconds=beat,
            enqueuer=enqueuer,
            bus=events.bus,
        )

    return make


@pytest.fixture
def short_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LAST_WORDS_SECONDS", 0.2)
    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.01)


class Handler:
    """Runs until `let_go`; counts how many run at once."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.let_go = asyncio.Event()
        self.running = 0
        self.most = 0
        self._stubborn = stubborn

    async def __call__(self, ctx: JobContext, payload: dict[str, Any]) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while not self.let_go.is_set():
                await self._wait()
        finally:
            self.running -= 1
        return "done"

    async def _wait(self) -> None:
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            if not self._stubborn:
                raise


@pytest.fixture
def handler(registry: JobRegistry) -> Handler:
    made = Handler()
    registry.handler("send")(made)
    return made


def raising(error: BaseException) -> Callable[..., Any]:
    async def handler(ctx: JobContext, payload: dict[str, Any]) -> None:
        raise error

    return handler
