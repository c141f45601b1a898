"""Intake: wait for a slot, wait for the bell, start what fits, hand back what does not."""

from __future__ import annotations

import asyncio

import pytest
from moving_parts import started_job, until

from async_jobs import failpoints
from async_jobs.errors import StoreUnavailable
from async_jobs.models import StartedJob
from async_jobs.worker import consumer as consumer_module
from async_jobs.worker.consumer import Consumer
from async_jobs.worker.slots import Slots

from .conftest import FakeReceiver


class Begun:
    def __init__(self) -> None:
        self.jobs: list[StartedJob] = []

    def __call__(self, job: StartedJob, asked_at: float) -> None:
        self.jobs.append(job)


def test_all_free_slots_are_claimed_at_once() -> None:
    slots = Slots(3)

    assert (slots.claim(), slots.free, slots.claim()) == (3, 0, 0)


async def test_slots_given_back_wake_who_waits() -> None:
    slots = Slots(2)
    slots.claim()
    waiting = asyncio.ensure_future(slots.wait_free())
    await asyncio.sleep(0)
    assert not waiting.done()

    slots.give_back(1)

    await asyncio.wait_for(waiting, 20)
    assert slots.free == 1


async def test_giving_back_nothing_wakes_nobody() -> None:
    slots = Slots(1)
    slots.claim()
    slots.give_back(0)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slots.wait_free(), 0.001)


async def test_what_was_started_begins_and_keeps_its_slot(receiver: FakeReceiver) -> None:
    slots, begun = Slots(5), Begun()
    consumer = Consumer(receiver, slots, begun, stopping=lambda: False)
    jobs = [started_job(), started_job()]
    receiver.put(*jobs)

    await consumer.tick()

    assert (begun.jobs, slots.free, receiver.asked) == (jobs, 3, [5])


async def test_slots_come_back_when_a_start_fails(
    receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(slots: int) -> list[StartedJob]:
        raise StoreUnavailable

    monkeypatch.setattr(receiver, "start", away)
    slots = Slots(5)
    consumer = Consumer(receiver, slots, Begun(), stopping=lambda: False)

    with pytest.raises(StoreUnavailable):
        await consumer.tick()
    assert slots.free == 5


async def test_slots_come_back_when_what_was_started_cannot_begin(receiver: FakeReceiver) -> None:
    slots, begun = Slots(5), Begun()
    consumer = Consumer(receiver, slots, begun, stopping=lambda: False)
    receiver.put(started_job(), started_job())

    failpoints.arm("worker.after_start=raise")
    try:
        with pytest.raises(failpoints.FailpointReached):
            await consumer.tick()
    finally:
        failpoints.arm(None)

    assert (begun.jobs, slots.free) == ([], 5)


async def test_what_has_begun_keeps_its_slot_when_the_next_cannot_begin(
    receiver: FakeReceiver,
) -> None:
    slots, begun = Slots(5), Begun()

    def begin(job: StartedJob, asked_at: float) -> None:
        if begun.jobs:
            raise RuntimeError
        begun(job, asked_at)

    receiver.put(started_job(), started_job(), started_job())

    with pytest.raises(RuntimeError):
        await Consumer(receiver, slots, begin, stopping=lambda: False).tick()

    assert (len(begun.jobs), slots.free) == (1, 4)


async def test_an_idle_long_poll_keeps_no_slot_from_another_queue(receiver: FakeReceiver) -> None:
    slots, begun, busy = Slots(1), Begun(), FakeReceiver()
    receiver.poll_seconds = 3_600
    idle = asyncio.ensure_future(Consumer(receiver, slots, begun, stopping=lambda: False).tick())
    await until(lambda: receiver.waiting)

    busy.put(started_job())
    await Consumer(busy, slots, begun, stopping=lambda: False).tick()

    assert len(begun.jobs) == 1
    receiver.bell.set()
    await idle
    assert receiver.asked == []


async def test_without_a_slot_nothing_is_received(receiver: FakeReceiver) -> None:
    slots = Slots(1)
    slots.claim()
    consumer = Consumer(receiver, slots, Begun(), stopping=lambda: False)
    tick = asyncio.ensure_future(consumer.tick())
    await asyncio.sleep(0)
    assert receiver.waiting == 0

    receiver.put(started_job())
    slots.give_back(1)

    await asyncio.wait_for(tick, 20)
    assert receiver.asked == [1]


async def test_what_finds_no_slot_for_long_is_handed_back(
    receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "HOLD_SECONDS", 0.001)
    slots = Slots(1)
    slots.claim()

    await Consumer(receiver, slots, Begun(), stopping=lambda: False).tick()

    assert (receiver.handed_back, receiver.asked) == (1, [])


async def test_what_comes_in_during_a_stop_is_not_started(receiver: FakeReceiver) -> None:
    begun = Begun()
    receiver.put(started_job())
    consumer = Consumer(receiver, Slots(5), begun, stopping=lambda: True)

    await consumer.tick()
    await consumer.stop()

    assert (begun.jobs, receiver.asked) == ([], [])
    assert (receiver.handed_back, receiver.closed) == (1, True)
