"""Leases of sent tickets are short, and live on while their sender does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from store.factories import MIDNIGHT, JobFactory, SettableClock

from async_jobs.models import Ticket
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.scheduler.outstanding import RENEW_EVERY_SECONDS, RENEWAL_SECONDS, Outstanding
from async_jobs.store.jobs import JobStore

from .conftest import DISPATCH_LEASE_SECONDS, MakeDispatcher


@pytest.fixture
def dispatcher(make_dispatcher: MakeDispatcher, clock: SettableClock) -> Dispatcher:
    return make_dispatcher(monotonic=lambda: clock.at.timestamp())


async def seconds_left(jobs: JobFactory, job_id: UUID, clock: SettableClock) -> float:
    row = await jobs.row(job_id)
    assert row.lease_expires_at is not None
    return (row.lease_expires_at - clock.at) / timedelta(seconds=1)


async def test_a_lease_is_renewed_every_second_while_its_ticket_waits(
    jobs: JobFactory, dispatcher: Dispatcher, clock: SettableClock
) -> None:
    job = await jobs.waiting()
    await dispatcher.tick()

    for _ in range(3):
        clock.advance(RENEW_EVERY_SECONDS)
        assert await dispatcher.tick() <= RENEW_EVERY_SECONDS
        assert await seconds_left(jobs, job.id, clock) == RENEWAL_SECONDS


async def test_no_lease_of_a_ticket_outlasts_the_dispatch_lease(
    jobs: JobFactory, dispatcher: Dispatcher, store: JobStore, clock: SettableClock
) -> None:
    job = await jobs.waiting()
    await dispatcher.tick()
    while clock.at < MIDNIGHT + timedelta(seconds=DISPATCH_LEASE_SECONDS):
        assert await store.rescue(10) == []
        clock.advance(RENEW_EVERY_SECONDS)
        await dispatcher.tick()

    assert [one.job_id for one in await store.rescue(10)] == [job.id]


async def test_a_lease_of_a_sender_that_is_gone_is_over_in_three_seconds(
    jobs: JobFactory, dispatcher: Dispatcher, store: JobStore, clock: SettableClock
) -> None:
    job = await jobs.waiting()
    await dispatcher.tick()
    clock.advance(RENEWAL_SECONDS)

    assert [one.job_id for one in await store.rescue(10)] == [job.id]


async def test_a_lease_in_the_table_itself_has_no_sender_and_is_not_renewed(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, clock: SettableClock
) -> None:
    job = await jobs.waiting()
    dispatcher = make_dispatcher(uses_sqs=False, monotonic=lambda: clock.at.timestamp())
    await dispatcher.tick()
    clock.advance(10.0)
    await dispatcher.tick()

    assert await seconds_left(jobs, job.id, clock) == DISPATCH_LEASE_SECONDS - 10.0


async def test_a_started_or_later_lease_is_not_touched(
    jobs: JobFactory, store: JobStore, clock: SettableClock
) -> None:
    running = await jobs.running()
    clock.advance(1.0)

    renewed = await store.renew(
        [Ticket(running.id, running.lease_seq)], lease_seconds=900.0, most_seconds=900.0
    )

    assert renewed == set()
    assert (await jobs.row(running)).lease_expires_at == running.lease_expires_at


class CountingDesk:
    """Says that every ticket still waits, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def renew(
        self, tickets: Sequence[Ticket], *, lease_seconds: float, most_seconds: float
    ) -> set[UUID]:
        self.asked.append(len(tickets))
        return {ticket.job_id for ticket in tickets}


async def test_while_workers_keep_up_nothing_is_asked(jobs: JobFactory) -> None:
    desk = CountingDesk()
    outstanding = Outstanding(desk, dispatch_lease_seconds=15.0)
    for second in range(10):
        outstanding.add([await jobs.leased()], at=float(second))
        outstanding.none_is_old(at=second + 0.9)
        await outstanding.renew(at=second + 0.95)

    assert desk.asked == []
    assert not outstanding


async def test_what_waits_longer_than_the_dispatch_lease_is_forgotten(jobs: JobFactory) -> None:
    desk = CountingDesk()
    outstanding = Outstanding(desk, dispatch_lease_seconds=5.0)
    outstanding.add([await jobs.leased()], at=100.0)
    for second in range(10):
        await outstanding.renew(at=101.0 + second)

    assert desk.asked == [1, 1, 1, 1]
    assert not outstanding
