"""Without workers no queue grows beyond twice the capacity."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from store.factories import SUCCEEDED, JobFactory, SettableClock

from async_jobs.errors import TransportError
from async_jobs.models import Ticket
from async_jobs.scheduler.depth import Depth
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.store.jobs import JobStore

from .conftest import DISPATCH_LEASE_SECONDS, FakeSender, MakeDispatcher

CAPACITY = 10


@pytest.fixture
def dispatcher(make_clocked_dispatcher: MakeDispatcher) -> Dispatcher:
    return make_clocked_dispatcher(capacity=CAPACITY)


async def pass_seconds(
    dispatcher: Dispatcher, store: JobStore, sender: FakeSender, clock: SettableClock, seconds: int
) -> int:
    """Time goes by without workers; gives the greatest depth, as every message stays."""
    deepest = 0
    for _ in range(seconds):
        await store.rescue(100)
        await dispatcher.tick()
        sender.waiting = len(sender.sent)
        deepest = max(deepest, sender.waiting)
        clock.advance(1.0)
    return deepest


async def test_without_workers_the_queue_stays_below_twice_the_capacity(
    jobs: JobFactory,
    dispatcher: Dispatcher,
    store: JobStore,
    sender: FakeSender,
    clock: SettableClock,
) -> None:
    waiting = [await jobs.waiting() for _ in range(3 * CAPACITY)]

    deepest = await pass_seconds(dispatcher, store, sender, clock, int(6 * DISPATCH_LEASE_SECONDS))

    assert CAPACITY <= deepest < 2 * CAPACITY
    assert {(await jobs.row(job.id)).attempts for job in waiting} == {0}


async def test_two_schedulers_stay_below_it_together(
    jobs: JobFactory,
    make_clocked_dispatcher: MakeDispatcher,
    store: JobStore,
    sender: FakeSender,
    clock: SettableClock,
) -> None:
    both = [make_clocked_dispatcher(capacity=CAPACITY) for _ in range(2)]
    for _ in range(5 * CAPACITY):
        await jobs.waiting()

    for _ in range(int(2 * DISPATCH_LEASE_SECONDS)):
        for each in both:
            await pass_seconds(each, store, sender, clock, 1)

    assert len(sender.sent) < 2 * CAPACITY


async def test_it_goes_on_at_once_when_workers_have_taken_what_lay_there(
    jobs: JobFactory,
    dispatcher: Dispatcher,
    store: JobStore,
    sender: FakeSender,
    clock: SettableClock,
) -> None:
    for _ in range(3 * CAPACITY):
        await jobs.waiting()
    await pass_seconds(dispatcher, store, sender, clock, int(4 * DISPATCH_LEASE_SECONDS))
    before = len(sender.sent)

    sender.waiting = 0
    clock.advance(1.0)
    await dispatcher.tick()

    assert len(sender.sent) > before


async def test_while_workers_start_what_is_sent_nothing_is_asked(
    jobs: JobFactory,
    dispatcher: Dispatcher,
    store: JobStore,
    sender: FakeSender,
    clock: SettableClock,
) -> None:
    sent = 0
    for _ in range(int(2 * DISPATCH_LEASE_SECONDS)):
        await jobs.waiting()
        await dispatcher.tick()
        for one in sender.sent[sent:]:
            [job] = await store.start(
                [Ticket(one.job_id, one.lease_seq)], worker="w", lease_seconds=60.0
            )
            await store.finish([(job, SUCCEEDED)])
        sent = len(sender.sent)
        clock.advance(1.0)

    assert sent == 2 * DISPATCH_LEASE_SECONDS
    assert sender.asked <= 2


@dataclass
class Deep:
    waiting: int | None
    asked: int = 0

    async def depth(self) -> int:
        self.asked += 1
        if self.waiting is None:
            raise TransportError("mail", "AccessDenied")
        return self.waiting


async def test_a_queue_that_does_not_tell_its_depth_is_taken_for_one_with_room() -> None:
    depth = Depth(Deep(None), most=1, trust_seconds=10.0)

    assert not await depth.look(started_at=0.0, at=100.0)


async def test_a_start_that_was_seen_settles_it_without_a_question() -> None:
    queue = Deep(5)
    depth = Depth(queue, most=5, trust_seconds=10.0)

    assert await depth.look(started_at=0.0, at=10.0)
    assert not await depth.look(started_at=10.0, at=19.9)
    assert queue.asked == 1


async def test_a_queue_is_asked_once_a_second_at_most() -> None:
    queue = Deep(5)
    depth = Depth(queue, most=5, trust_seconds=10.0)

    for tenths in range(20):
        assert await depth.look(started_at=0.0, at=100 + tenths / 10)

    assert queue.asked == 2
