"""Counts get to the database every few seconds, survive its absence, and cost nothing when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from moving_parts import Events, open_store, until

from async_jobs.core.slo import Histogram, Key, Measure, Slack, SloRecord, Sums
from async_jobs.errors import StoreUnavailable
from async_jobs.runtime.slo_writer import EVERY_SECONDS, SloWriter, writing
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.events import LoopFailed

ALL = Key("mail", "", Measure.START)


@dataclass
class FakeDesk:
    """Keeps what is written; `away` is a database that is away."""

    written: list[Mapping[Key, Histogram]] = field(default_factory=list)
    pruned: int = 0
    away: bool = False

    async def add(self, counts: Mapping[Key, Histogram]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.written.append(counts)

    async def prune(self, most: int) -> int:
        self.pruned += 1
        return 0


def count(record: SloRecord, slack_seconds: float = 1.0) -> None:
    record.started("mail", Slack("acme", slack_seconds, 10.0))


@pytest.fixture
def record() -> SloRecord:
    return SloRecord()


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest_asyncio.fixture
async def store(emptied_database: str) -> AsyncIterator[JobStore]:
    async with open_store(emptied_database) as opened:
        yield opened


async def test_an_idle_process_writes_nothing(record: SloRecord, desk: FakeDesk) -> None:
    writer = SloWriter(record, desk)

    assert [await writer.tick() for _ in range(3)] == [EVERY_SECONDS] * 3

    assert (desk.written, desk.pruned) == ([], 0)


async def test_many_jobs_are_one_write(record: SloRecord, desk: FakeDesk) -> None:
    writer = SloWriter(record, desk)
    for _ in range(1_000):
        count(record)
    await writer.tick()
    count(record, -1.0)
    await writer.tick()

    assert [(each[ALL].total, each[ALL].late) for each in desk.written] == [(1_000, 0), (1, 1)]
    assert desk.pruned == 1


async def test_what_an_outage_kept_back_is_written_after_it(
    record: SloRecord, desk: FakeDesk
) -> None:
    writer = SloWriter(record, desk)
    desk.away = True
    for _ in range(3):
        count(record)
        with pytest.raises(StoreUnavailable):
            await writer.tick()
    desk.away = False

    await writer.tick()

    assert [each[ALL].total for each in desk.written] == [3]


async def test_an_outage_is_told_and_harms_nothing_else(record: SloRecord, desk: FakeDesk) -> None:
    events = Events()
    desk.away = True
    count(record)

    async with writing(SloWriter(record, desk), bus=events.bus):
        await until(lambda: events.of(LoopFailed))

    assert {event.loop for event in events.of(LoopFailed)} == {"slo record"}


async def test_a_stop_writes_what_was_counted_last(record: SloRecord, desk: FakeDesk) -> None:
    async with writing(SloWriter(record, desk), bus=Events().bus):
        await asyncio.sleep(0)
        count(record)

    assert [each[ALL].total for each in desk.written] == [1]


async def test_a_stop_in_the_middle_of_a_write_loses_nothing(record: SloRecord) -> None:
    """The write is given up and its counts go with the last one."""
    hung = asyncio.Event()

    class HungOnce(FakeDesk):
        async def add(self, counts: Mapping[Key, Histogram]) -> None:
            if not hung.is_set():
                hung.set()
                await asyncio.Event().wait()
            await super().add(counts)

    desk = HungOnce()
    count(record)
    async with writing(SloWriter(record, desk), bus=Events().bus):
        await hung.wait()

    assert [each[ALL].total for each in desk.written] == [1]


async def test_a_crash_loses_only_what_was_not_written_yet(store: JobStore) -> None:
    survivor, victim = SloRecord(), SloRecord()
    writers = [SloWriter(record, store.slo) for record in (survivor, victim)]
    for record, writer in zip((survivor, victim), writers, strict=True):
        count(record)
        await writer.tick()
        count(record)
    del victim

    await writers[0].tick()

    sums = await store.slo.sum_windows(["mail"])
    assert sums["mail", Measure.START, "5m"] == Sums(3, 0, 3.0)


@pytest.mark.own_session
async def test_a_connection_that_breaks_in_between_is_survived(
    store: JobStore, record: SloRecord, postgres_admin: psycopg.Connection[Any]
) -> None:
    writer = SloWriter(record, store.slo)
    count(record)
    await writer.tick()
    postgres_admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname LIKE 'async_jobs_shared%' AND backend_type = 'client backend'"
    )
    count(record)
    with pytest.raises(StoreUnavailable):
        await writer.tick()

    for _ in range(5):  # the pool may hold more connections that broke
        with suppress(StoreUnavailable):
            await writer.tick()

    sums = await store.slo.sum_windows(["mail"])
    assert sums["mail", Measure.START, "5m"].total == 2
