"""Group commit: single enqueues that come while another one is under way share one statement.

    nobody is under way     a call goes at once, by itself
    somebody is             calls wait for its return, or PATIENCE_SECONDS after the first of them
                            came, or until MOST_TOGETHER wait; then they go together, as one
                            convoy: one statement, one commit

Nobody waits for a timer while the database is quick, and a statement that hangs holds others up
for a moment only. Each caller gets its own answer or its own error: what a convoy has no answer
for is sent again alone. A caller that is cancelled while it waits is left out; one that is
cancelled later leaves the others alone. Nothing is answered before the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from async_jobs.models import AcceptedJob, Enqueued

PATIENCE_SECONDS = 0.01
MOST_TOGETHER = 128


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """A job that is enqueued by itself, with what its caller's context says of it."""

    job: AcceptedJob
    hints: Sequence[str]
    trace_context: str | None


class Road(Protocol):
    """How jobs get into the table."""

    async def alone(self, single: Single, /) -> Enqueued: ...

    async def together(self, singles: Sequence[Single], /) -> Sequence[Enqueued | Exception | None]:
        """What each gets, in their order; None: it is to go alone. Raises nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rider:
    """A caller that waits for the answer about its job."""

    single: Single
    road: Road
    answer: asyncio.Future[Enqueued]

    def give(self, answer: Enqueued | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)

    async def go_alone(self) -> None:
        try:
            self.give(await self.road.alone(self.single))
        except Exception as error:
            self.give(error)


class Convoy:
    """The calls of one event loop that may share statements."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._waiting: list[_Rider] = []
        self._ahead: object | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def store(self, single: Single, road: Road) -> Enqueued:
        """What became of *single*, stored alone or with others."""
        if self._ahead is None:
            return await self._go_first(single, road)
        rider = _Rider(single, road, self.loop.create_future())
        self._waiting.append(rider)
        if len(self._waiting) >= MOST_TOGETHER:
            self._leave()
        elif self._timer is None:
            self._timer = self.loop.call_later(PATIENCE_SECONDS, self._leave)
        return await rider.answer

    async def _go_first(self, single: Single, road: Road) -> Enqueued:
        """In the caller's own task: who is cancelled cancels only its own statement."""
        self._ahead = single
        try:
            return await road.alone(single)
        finally:
            self._hand_over(single, together=False)

    def _hand_over(self, mark: object, *, together: bool) -> None:
        """The statement *mark* has ended: who waits for it goes now."""
        if together or self._waiting:
            # Callers that come again at once, as those that were answered may, go along.
            self.loop.call_soon(self._go_on, mark)
        else:
            self._go_on(mark)

    def _go_on(self, mark: object) -> None:
        if self._ahead is mark:
            self._ahead = None
            self._leave()

    def _leave(self) -> None:
        """Who waits goes, whether the statement ahead has ended or takes too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        riders = [rider for rider in self._waiting if not rider.answer.done()]
        self._waiting.clear()
        if riders:
            self._ahead = riders
            # A context of its own: it is nobody's statement more than another's.
            ride = self.loop.create_task(self._ride(riders), context=Context())
            self._under_way.add(ride)
            ride.add_done_callback(self._under_way.discard)

    async def _ride(self, riders: Sequence[_Rider]) -> None:
        try:
            alone = await self._share(riders)
            await asyncio.gather(*[rider.go_alone() for rider in alone])
        finally:
            # Only where the event loop ends: nobody is left waiting.
            for rider in riders:
                rider.answer.cancel()

    async def _share(self, riders: Sequence[_Rider]) -> list[_Rider]:
        """Answer what one statement can; gives the others."""
        try:
            answers = await riders[0].road.together([rider.single for rider in riders])
            for rider, answer in zip(riders, answers, strict=True):
                if answer is not None:
                    rider.give(answer)
        finally:
            self._hand_over(riders, together=len(riders) > 1)
        return [rider for rider in riders if not rider.answer.done()]


_convoys: WeakKeyDictionary[object, dict[Hashable, Convoy]] = WeakKeyDictionary()
"""For each pool, because a router may make a store for every request."""


def convoy_of(pool: object, lane: Hashable) -> Convoy:
    """The convoy of those who use *pool* from this event loop, in one *lane*."""
    lanes = _convoys.setdefault(pool, {})
    convoy = lanes.get(lane)
    if convoy is None or convoy.loop is not asyncio.get_running_loop():
        convoy = lanes[lane] = Convoy()
    return convoy
