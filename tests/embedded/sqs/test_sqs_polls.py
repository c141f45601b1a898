"""Long polls on the event loop: who is served, and when the queue is looked at again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from async_jobs.embedded.sqs.message import Draft, Message
from async_jobs.embedded.sqs.polls import LongPoll, LongPolls
from async_jobs.embedded.sqs.queue import Queue
from async_jobs.embedded.sqs.region import Region

Found = asyncio.Queue[Sequence[Message]]


def _polls() -> tuple[Region, Queue, LongPolls]:
    region = Region()
    queue = region.create("mail", {})
    return region, queue, LongPolls(queue, region.clock, asyncio.get_running_loop())


def _poll(found: Found, *, is_wanted: bool = True) -> LongPoll:
    return LongPoll(
        limit=1,
        visibility_seconds=30,
        wait_seconds=20,
        deliver=found.put_nowait,
        is_wanted=lambda: is_wanted,
    )


async def test_a_poll_that_nobody_wants_any_more_is_passed_over() -> None:
    region, queue, polls = _polls()
    gone: Found = asyncio.Queue()
    waiting: Found = asyncio.Queue()
    polls.wait(_poll(gone, is_wanted=False))
    polls.wait(_poll(waiting))
    queue.send(Draft(body="m"), region.clock.now())
    (message,) = await waiting.get()

    assert message.draft.body == "m"
    assert gone.empty()
    assert len(polls) == 0


async def test_polls_are_served_in_the_order_they_came() -> None:
    region, queue, polls = _polls()
    first: Found = asyncio.Queue()
    second: Found = asyncio.Queue()
    for found in (first, second):
        polls.wait(_poll(found))
    for body in ("a", "b"):
        queue.send(Draft(body=body), region.clock.now())
    received = [(await found.get())[0].draft.body for found in (first, second)]

    assert received == ["a", "b"]


async def test_the_queue_is_looked_at_each_time_a_message_falls_due() -> None:
    region, queue, polls = _polls()
    found: Found = asyncio.Queue()
    for visibility_seconds in (0.02, 0.06):
        queue.send(Draft(body=str(visibility_seconds)), region.clock.now())
        queue.receive(1, visibility_seconds, region.clock.now())
    for _ in range(2):
        polls.wait(_poll(found))
    received = [(await found.get())[0].draft.body for _ in range(2)]

    assert received == ["0.02", "0.06"]
