"""Receives that wait for a message (long polls), and who is served when.

Each queue has one `LongPolls`. Whenever a message of the queue may have become
visible, the waiting receives are served in the order they came, in the next turn
of the event loop: connections that were closed before are noticed first, so that
no message is handed to a receiver that has gone. A poll that is cancelled, or
whose time is up, takes nothing with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from async_jobs.embedded.sqs.message import Message
from async_jobs.embedded.sqs.queue import Queue
from async_jobs.embedded.sqs.region import Clock


@dataclass(slots=True, eq=False, kw_only=True)
class LongPoll:
    """One waiting receive; *deliver* is called once, unless the poll is cancelled."""

    limit: int
    visibility_seconds: int
    wait_seconds: float
    deliver: Callable[[Sequence[Message]], None]
    is_wanted: Callable[[], bool] = lambda: True
    attempt_id: str | None = None
    timer: asyncio.TimerHandle | None = field(default=None, init=False)


class LongPolls:
    """The waiting receives of one queue."""

    def __init__(self, queue: Queue, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._queue = queue
        self._clock = clock
        self._loop = loop
        self._waiting: dict[LongPoll, None] = {}
        self._serving = False
        self._alarm: asyncio.TimerHandle | None = None
        queue.on_change = self.serve_soon

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, poll: LongPoll) -> None:
        """Let *poll* wait for a message, at most its `wait_seconds`."""
        self._waiting[poll] = None
        poll.timer = self._loop.call_later(poll.wait_seconds, self._finish, poll, ())
        self._set_alarm()

    def cancel(self, poll: LongPoll) -> None:
        """Forget *poll*: whoever waited has gone."""
        self._waiting.pop(poll, None)
        if poll.timer is not None:
            poll.timer.cancel()

    def finish_all(self) -> None:
        """Answer every waiting receive with nothing."""
        for poll in list(self._waiting):
            self._finish(poll, ())

    def serve_soon(self) -> None:
        """Look for messages for the waiting receives in the next turn of the event loop."""
        if self._waiting and not self._serving:
            self._serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        for poll in list(self._waiting):
            if not poll.is_wanted():
                self.cancel(poll)
                continue
            messages = self._queue.receive(
                poll.limit,
                poll.visibility_seconds,
                self._clock.now(),
                attempt_id=poll.attempt_id,
            )
            if not messages:
                break
            self._finish(poll, messages)
        self._set_alarm()

    def _finish(self, poll: LongPoll, messages: Sequence[Message]) -> None:
        self.cancel(poll)
        poll.deliver(messages)

    def _set_alarm(self) -> None:
        """Wake when the next delay or visibility time-out of the queue ends."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due_at = self._queue.next_due_at() if self._waiting else None
        if due_at is not None:
            self._alarm = self._loop.call_later(due_at - self._clock.now(), self.serve_soon)
