"""What every transport promises, asked of each: a message is a doorbell, the row is the job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from store.factories import JobFactory, SettableClock

from async_jobs.models import JobStatus, Leased

from .line import Line, send, take


async def lease(jobs: JobFactory, count: int) -> Sequence[Leased]:
    """*count* leased jobs, the first the most urgent."""
    for number in range(count):
        await jobs.waiting(delay_tolerance_seconds=60.0 + number)
    return await jobs.lease(count)


async def test_a_leased_job_reaches_a_worker(line: Line, jobs: JobFactory) -> None:
    leased = await lease(jobs, 1)
    report = await send(line, leased)

    started = await take(line.receiver("ada"))

    assert not report.failed
    assert [job.id for job in started] == [leased[0].job_id]
    row = await jobs.row(leased[0])
    assert (row.status, row.worker, row.attempts) == (JobStatus.RUNNING, "ada", 1)


async def test_a_started_job_carries_what_its_attempt_needs(line: Line, jobs: JobFactory) -> None:
    leased = await lease(jobs, 1)
    await send(line, leased)

    job = (await take(line.receiver()))[0]

    row = await jobs.row(job)
    assert (job.lease_seq, job.attempts, job.payload) == (leased[0].lease_seq, 1, row.payload)
    assert (job.deadline_at, job.lease_expires_at) == (row.deadline_at, row.lease_expires_at)


async def test_nothing_comes_where_nothing_was_leased(line: Line, jobs: JobFactory) -> None:
    await jobs.waiting()

    assert await take(line.receiver()) == []


async def test_a_message_that_came_twice_starts_its_job_once(line: Line, jobs: JobFactory) -> None:
    leased = await lease(jobs, 3)
    await send(line, leased)
    await send(line, leased, pack=3)

    started = await take(line.receiver())

    assert sorted(job.id for job in started) == sorted(job.job_id for job in leased)


async def test_two_workers_share_the_jobs_and_start_each_once(line: Line, jobs: JobFactory) -> None:
    leased = await lease(jobs, 20)
    await send(line, leased)
    await send(line, leased)

    shares = await asyncio.gather(
        take(line.receiver("ada"), looks=8), take(line.receiver("bob"), looks=8)
    )

    started = [job.id for share in shares for job in share]
    assert sorted(started) == sorted(job.job_id for job in leased)


async def test_a_lost_message_comes_back_after_the_dispatch_lease(
    line: Line, jobs: JobFactory, clock: SettableClock
) -> None:
    leased = await lease(jobs, 1)
    await send(line, leased)
    line.lose()

    clock.advance(jobs.lease_seconds + 1)
    assert [job.was_running for job in await line.store.rescue(10)] == [False]
    again = await jobs.lease()
    await send(line, again)
    started = await take(line.receiver())

    assert [(job.id, job.lease_seq, job.attempts) for job in started] == [(leased[0].job_id, 2, 1)]


async def test_a_lease_that_ran_out_starts_nothing(
    line: Line, jobs: JobFactory, clock: SettableClock
) -> None:
    leased = await lease(jobs, 1)
    await send(line, leased)
    clock.advance(jobs.lease_seconds + 1)

    assert await take(line.receiver()) == []
    assert (await jobs.row(leased[0])).attempts == 0


async def test_a_cancelled_job_starts_no_more(line: Line, jobs: JobFactory) -> None:
    leased = await lease(jobs, 2)
    await send(line, leased)
    await line.store.cancel(leased[0].job_id)

    started = await take(line.receiver())

    assert [job.id for job in started] == [leased[1].job_id]


async def test_the_most_urgent_job_starts_first(line: Line, jobs: JobFactory) -> None:
    leased = await lease(jobs, 4)
    await send(line, leased)
    receiver = line.receiver()

    started = [job.id for _ in leased for job in await take(receiver, slots=1, looks=1)]

    assert started == [job.job_id for job in leased]


async def test_never_more_jobs_start_than_slots_are_free(line: Line, jobs: JobFactory) -> None:
    await send(line, await lease(jobs, 10), pack=5)
    receiver = line.receiver()

    started = []
    for slots in (3, 1, 2):
        await receiver.wait(slots)
        started.append(len(await receiver.start(slots)))

    assert started == [3, 1, 2]


async def test_what_a_worker_hands_back_another_worker_can_run_at_once(
    line: Line, jobs: JobFactory
) -> None:
    await send(line, await lease(jobs, 3), pack=3)
    first = line.receiver("ada")
    ran = await take(first, slots=1, looks=1)

    await first.hand_back()
    await first.close()
    await send(line, await jobs.lease())
    ran += await take(line.receiver("bob"))

    assert sorted(job.id for job in ran) == sorted(jobs.made)
    assert all(job.attempts == 1 for job in ran)


async def test_a_closed_receiver_has_left_nothing_on_the_way(line: Line, jobs: JobFactory) -> None:
    await send(line, await lease(jobs, 3), pack=2)
    receiver = line.receiver()
    await take(receiver)

    await receiver.hand_back()
    await receiver.close()

    assert await take(line.receiver()) == []
