"""Answers in time, also when the database does not: whoever waits is told so, not left waiting.

The store bounds its own calls, but by a longer time, for other callers may have it. A caller of
the API does not wait for that: the call is left to end by itself, and the answer is 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from async_jobs.errors import StoreUnavailable

ANSWER_WITHIN_SECONDS = 5.0

T = TypeVar("T")

_left_behind: set[asyncio.Task[Any]] = set()
"""What nobody waits for any more, kept so that it is not collected before it ends."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What *work* gives; raises StoreUnavailable after *seconds* at the latest."""
    loop = asyncio.get_running_loop()
    call = loop.create_task(work)
    # What asyncio.wait does, for a third of its time.
    over = loop.create_future()
    call.add_done_callback(lambda _: _wake(over))
    timer = loop.call_later(seconds, _wake, over)
    try:
        await over
    finally:
        timer.cancel()
        if not call.done():
            _leave(call)
    if call.done():
        return call.result()
    raise StoreUnavailable(f"The database gave no answer within {seconds:g} s.")


def _wake(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def _leave(call: asyncio.Task[Any]) -> None:
    call.cancel()
    _left_behind.add(call)
    call.add_done_callback(_forget)


def _forget(call: asyncio.Task[Any]) -> None:
    _left_behind.discard(call)
    if not call.cancelled():
        call.exception()  # looked at, so that asyncio does not complain
