"""What is PostgreSQL's own as a transport: hints wake a receiver, and nothing needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from moving_parts import Events, until
from store.factories import LEASE_SECONDS, JobFactory

from async_jobs.runtime.loop import Loop
from async_jobs.store.hints import HintListener
from async_jobs.transport.postgres import QUIET_LOOKS, PostgresReceiver

from .line import QUEUE, PostgresLine, take


@asynccontextmanager
async def listening(database: str, receiver: PostgresReceiver) -> AsyncIterator[None]:
    connected = asyncio.Event()
    listener = HintListener(
        database,
        {"async_jobs_leased": receiver.ring},
        application_name="listener",
        on_connect=connected.set,
    )
    loop = Loop("hints", listener.tick, bus=Events().bus)
    running = asyncio.ensure_future(loop.run())
    await connected.wait()
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])
        await listener.close()


async def idle(receiver: PostgresReceiver) -> None:
    """Let *receiver* find nothing until its pauses have grown to the poll interval."""
    while receiver._pause_seconds < receiver._poll_interval_seconds:
        receiver.ring(QUEUE)  # do not wait for real
        await receiver.wait(1)
        await receiver.start(1)


@pytest.mark.own_session
async def test_a_hint_wakes_an_idle_receiver(
    postgres_line: PostgresLine, jobs: JobFactory, database: str
) -> None:
    receiver = postgres_line.receiver(poll_interval_seconds=3_600)
    await idle(receiver)
    async with listening(database, receiver):
        waiting = asyncio.ensure_future(receiver.wait(1))
        await jobs.waiting()
        async with postgres_line.store.take_turn("mail") as turn:
            assert turn is not None
            leased = await turn.lease_due(1, lease_seconds=LEASE_SECONDS)
            await turn.hint([QUEUE])

        await asyncio.wait_for(waiting, 20)

    assert [job.id for job in await receiver.start(1)] == [leased[0].job_id]


async def test_without_hints_polling_finds_the_job(
    postgres_line: PostgresLine, jobs: JobFactory
) -> None:
    receiver = postgres_line.receiver(poll_interval_seconds=0.05)
    await idle(receiver)
    leased = await jobs.leased()

    await asyncio.wait_for(receiver.wait(1), 20)

    assert [job.id for job in await receiver.start(1)] == [leased.job_id]


async def test_a_hint_for_another_queue_does_not_wake(postgres_line: PostgresLine) -> None:
    receiver = postgres_line.receiver(poll_interval_seconds=3_600)
    await idle(receiver)
    waiting = asyncio.ensure_future(receiver.wait(1))

    receiver.ring("another-queue")
    for _ in range(5):
        await asyncio.sleep(0)

    assert not waiting.done()
    receiver.ring(QUEUE)
    await until(waiting.done)


async def test_a_hint_during_a_start_is_not_lost(postgres_line: PostgresLine) -> None:
    receiver = postgres_line.receiver(poll_interval_seconds=3_600)
    await idle(receiver)
    starting = asyncio.ensure_future(receiver.start(1))
    await asyncio.sleep(0)

    receiver.ring(QUEUE)
    await starting

    await asyncio.wait_for(receiver.wait(1), 20)


async def test_pauses_grow_to_the_poll_interval_and_start_over_with_work(
    postgres_line: PostgresLine, jobs: JobFactory
) -> None:
    receiver = postgres_line.receiver(poll_interval_seconds=0.05)
    pauses = []
    for _ in range(3):
        await receiver.start(1)
        pauses.append(receiver._pause_seconds)
    await jobs.leased()
    await receiver.start(1)

    assert pauses == [0.02, 0.04, 0.05]
    assert receiver._pause_seconds == 0.0


async def test_a_worker_that_has_been_idle_for_long_asks_every_other_interval(
    postgres_line: PostgresLine, jobs: JobFactory
) -> None:
    receiver = postgres_line.receiver(poll_interval_seconds=0.02)
    pauses = []
    for _ in range(QUIET_LOOKS + 2):
        await receiver.start(1)
        pauses.append(receiver._pause_seconds)
    await jobs.leased()
    await receiver.start(1)
    await receiver.start(1)

    assert pauses == [0.02] * (QUIET_LOOKS + 1) + [0.04]
    assert receiver._pause_seconds == 0.02


async def test_while_jobs_come_with_a_hint_a_receiver_does_not_look_for_more(
    postgres_line: PostgresLine, jobs: JobFactory
) -> None:
    receiver = postgres_line.receiver(poll_interval_seconds=0.05)
    await receiver.start(1)
    pauses = []
    for is_hinted in (True, False):
        await jobs.leased()
        if is_hinted:
            receiver.ring(QUEUE)
        await receiver.wait(1)
        assert len(await receiver.start(1)) == 1
        await receiver.start(1)
        pauses.append(receiver._pause_seconds)

    assert pauses == [0.05, 0.02]


async def test_jobs_of_other_queues_are_left_to_others(
    postgres_line: PostgresLine, jobs: JobFactory
) -> None:
    await jobs.leased(queue="another-queue")

    assert await take(postgres_line.receiver()) == []
