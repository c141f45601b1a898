"""The model of one queue: messages that are delayed, visible or in flight.

    send ──► delayed ──► visible ──receive──► in flight ──delete──► gone
                            ▲                     │
                            └──── visibility ─────┘   received too often: to the dead-letter queue

Time comes in with every call (`now`, in seconds), so the model needs no clock, no
loop and no connection. What falls due (a delay, a visibility time-out) is a heap
of times looked at before every operation; an entry that was overtaken is skipped,
and the heap is rebuilt when most of it is such entries. Which visible message is
next is decided by the queue's order (`fair.py` or `fifo.py`). Sending, receiving
and deleting cost O(log n) at most in the number of messages waiting.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from random import Random, getrandbits

from async_jobs.embedded.sqs.attributes import QueueSettings
from async_jobs.embedded.sqs.fair import FairOrder
from async_jobs.embedded.sqs.fifo import Deduplication, FifoOrder
from async_jobs.embedded.sqs.message import (
    Draft,
    Message,
    State,
    md5_of,
    read_handle,
    write_handle,
)
from async_jobs.embedded.sqs.refusal import Refused, invalid_value

LONGEST_VISIBILITY_SECONDS = 43_200
MOST_IN_FLIGHT = 120_000
PURGE_INTERVAL_SECONDS = 60.0
ATTEMPT_SECONDS = 300.0
_SLACK = 1024


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages of a queue are in which state."""

    visible: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, slots=True)
class _Handed:
    """What one ReceiveRequestAttemptId got, and with which receipts."""

    at: float
    messages: tuple[tuple[Message, int, float], ...]

    @classmethod
    def of(cls, messages: list[Message], at: float) -> _Handed:
        return cls(at, tuple((each, each.receive_count, each.due_at) for each in messages))

    def is_untouched(self) -> bool:
        """Whether nobody has deleted, hidden or received these messages since."""
        return all(
            message.state is State.IN_FLIGHT
            and (message.receive_count, message.due_at) == (receive_count, due_at)
            for message, receive_count, due_at in self.messages
        )


class Queue:
    """One queue. *find* resolves the ARN of a dead-letter queue."""

    def __init__(
        self,
        name: str,
        arn: str,
        settings: QueueSettings,
        now: float,
        find: Callable[[str], Queue | None],
    ) -> None:
        self.name = name
        self.arn = arn
        self.settings = settings
        self.created_at = self.changed_at = now
        self.tags: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever a message may have become visible, or will at another time."""
        self.most_in_flight = MOST_IN_FLIGHT
        self._find = find
        self._token = sha256(arn.encode()).hexdigest()[:12]
        # A random start, so that a handle from a former life of the queue meets no new message.
        self._keys = count(getrandbits(40) << 20)
        self._serials = count()
        self._purged_at: float | None = None
        self._reset()

    def _reset(self) -> None:
        self._messages: dict[int, Message] = {}
        self._order: FifoOrder | FairOrder = FifoOrder() if self.settings.is_fifo else FairOrder()
        self._deduplication = Deduplication()
        self._attempts: dict[str, _Handed] = {}
        self._due: list[tuple[float, int, Message]] = []
        self._in_state = [0] * len(State)
        self._sweep_at = float("inf")

    def send(self, draft: Draft, now: float, *, copies: int = 1) -> Message:
        """Store *draft* and return the message; *copies* other than 1 lose or double it.

        A FIFO queue that accepted the deduplication id within five minutes stores
        nothing and returns the message of that time.
        """
        if not self.settings.is_fifo:
            return self._store(draft, now, copies=copies)
        scope = (draft.group_id or "") if self.settings.deduplicates_by_group else ""
        deduplication_id = draft.deduplication_id or sha256(draft.body.encode()).hexdigest()
        twin = self._deduplication.find(scope, deduplication_id, now)
        if twin is not None:
            return twin
        draft = replace(draft, deduplication_id=deduplication_id)
        message = self._store(draft, now, copies=copies)
        self._deduplication.remember(scope, deduplication_id, message, now)
        return message

    def accept(self, message: Message, source_arn: str, now: float) -> None:
        """Take in a message that *source_arn* gave up; it keeps its id and its receive count."""
        moved = replace(
            message,
            key=next(self._keys),
            source_arn=source_arn,
            sent_at=now if self.settings.is_fifo else message.sent_at,
        )
        self._admit(moved, now)
        self.on_change()

    def redeliver(self, message: Message, now: float) -> None:
        """Take in a message moved back from a dead-letter queue, as a new message."""
        self._store(replace(message.draft, delay_seconds=None), now, copies=1)

    def put_back(self, message: Message) -> None:
        """Take in again a message that `withdraw` took out and that found no other place."""
        self._messages[message.key] = message
        self._move(message, State.VISIBLE)
        self.on_change()

    def _store(self, draft: Draft, now: float, *, copies: int) -> Message:
        message = self._message_of(draft, now)
        delay = draft.delay_seconds
        delay = self.settings.delay_seconds if delay is None else delay
        for copy in range(copies):
            stored = replace(message, key=next(self._keys)) if copy else message
            self._admit(stored, now, delay_seconds=delay)
        self.on_change()
        return message

    def _message_of(self, draft: Draft, now: float) -> Message:
        key = next(self._keys)
        return Message(
            key=key,
            message_id=str(uuid.uuid4()),
            draft=draft,
            md5_of_body=md5_of(draft.body),
            sent_at=now,
            sequence_number=f"{key:020d}" if self.settings.is_fifo else None,
        )

    def _admit(self, message: Message, now: float, *, delay_seconds: float = 0) -> None:
        self._messages[message.key] = message
        self._sweep_at = min(self._sweep_at, message.sent_at + self.settings.retention_seconds)
        if delay_seconds:
            self._hold(message, State.DELAYED, due_at=now + delay_seconds)
        else:
            self._move(message, State.VISIBLE)

    def receive(
        self, limit: int, visibility_seconds: float, now: float, *, attempt_id: str | None = None
    ) -> list[Message]:
        """Hand out up to *limit* messages, hidden from others for *visibility_seconds*."""
        self.promote(now)
        if attempt_id is not None and self.settings.is_fifo:
            again = self._repeat(attempt_id, visibility_seconds, now)
            if again:
                return again
        handed: list[Message] = []
        limit = min(limit, self.most_in_flight - self._in_state[State.IN_FLIGHT])
        while len(handed) < limit:
            taken = self._order.take(limit - len(handed))
            if not taken:
                break
            for message in taken:
                self._hold(message, State.IN_FLIGHT, due_at=now + visibility_seconds)
            handed += [message for message in taken if not self._given_up(message, now)]
        for message in handed:
            _count_receive(message, now)
        if attempt_id is not None and handed:
            self._attempts[attempt_id] = _Handed.of(handed, now)
        return handed

    def withdraw(self, limit: int, now: float) -> list[Message]:
        """Take up to *limit* visible messages out of the queue for good."""
        self.promote(now)
        taken = self._order.take(limit)
        for message in taken:
            self._hold(message, State.IN_FLIGHT, due_at=now)
            self._remove(message)
        return taken

    def shuffle(self, rng: Random) -> None:
        """Mix the visible messages (fault `reorder`)."""
        self._order.shuffle(rng)

    def handle_of(self, message: Message) -> str:
        """The receipt handle of the latest receive of *message*."""
        return write_handle(self._token, message.key, message.receive_count)

    @property
    def is_full(self) -> bool:
        """Whether as many messages are in flight as SQS allows."""
        return self._in_state[State.IN_FLIGHT] >= self.most_in_flight

    def _given_up(self, message: Message, now: float) -> bool:
        """Whether *message* left the queue instead of being handed out."""
        if message.sent_at + self.settings.retention_seconds <= now:
            self._remove(message)
            return True
        redrive = self.settings.redrive
        if redrive is None or message.receive_count < redrive.max_receive_count:
            return False
        target = self._find(redrive.target_arn)
        if target is None:
            return False
        self._remove(message)
        target.accept(message, self.arn, now)
        return True

    def _repeat(self, attempt_id: str, visibility_seconds: float, now: float) -> list[Message]:
        """What this attempt got before, if nothing has happened to it since."""
        self._attempts = {
            known: handed
            for known, handed in self._attempts.items()
            if handed.at + ATTEMPT_SECONDS > now
        }
        handed = self._attempts.get(attempt_id)
        if handed is None or not handed.is_untouched():
            return []
        messages = [message for message, _, _ in handed.messages]
        for message in messages:
            self._hold(message, State.IN_FLIGHT, due_at=now + visibility_seconds)
        self._attempts[attempt_id] = _Handed.of(messages, handed.at)
        return messages

    def check_handle(self, handle: str) -> None:
        """Raise ReceiptHandleIsInvalid if this queue cannot have given out *handle*."""
        read_handle(handle, self._token)

    def delete(self, handle: str, now: float) -> None:
        """Delete the message behind *handle*.

        A message already gone is fine. A standard queue ignores a handle that a
        later receive has superseded; a FIFO queue refuses one that has expired.
        """
        message, is_current = self._behind(handle, now)
        if message is None:
            return
        if self.settings.is_fifo and not (is_current and message.state is State.IN_FLIGHT):
            raise invalid_value("ReceiptHandle", "The receipt handle has expired.")
        if is_current:
            self._remove(message)
            self.on_change()

    def change_visibility(self, handle: str, seconds: int, now: float) -> None:
        """Hide an in-flight message for *seconds* from now; 0 shows it at once."""
        message, is_current = self._behind(handle, now)
        if message is None or not is_current:
            raise invalid_value(
                "ReceiptHandle",
                "The message does not exist or is not available for a visibility change.",
            )
        if message.state is not State.IN_FLIGHT:
            raise Refused("MessageNotInflight", "The message is visible again: it timed out.")
        if now + seconds > message.latest_received_at + LONGEST_VISIBILITY_SECONDS:
            raise invalid_value(
                "VisibilityTimeout", "Since its receive the message would be hidden over 12 hours."
            )
        self._hold(message, State.IN_FLIGHT, due_at=now + seconds)
        self.promote(now)
        self.on_change()

    def purge(self, now: float) -> None:
        """Forget every message; refused within 60 s of the last purge."""
        if self._purged_at is not None and now < self._purged_at + PURGE_INTERVAL_SECONDS:
            raise Refused(
                "PurgeQueueInProgress",
                f"Only one PurgeQueue operation on {self.name} is allowed every 60 seconds.",
            )
        self._purged_at = now
        self.wipe()

    def wipe(self) -> None:
        """Forget every message, as a restarted server would."""
        for message in self._messages.values():
            message.state = State.OUTSIDE
        self._reset()

    def _behind(self, handle: str, now: float) -> tuple[Message | None, bool]:
        """The message of a receipt handle and whether no later receive superseded it."""
        self.promote(now)
        key, receive_count = read_handle(handle, self._token)
        message = self._messages.get(key)
        return message, message is not None and message.receive_count == receive_count

    def change_settings(self, attributes: dict[str, str], now: float) -> None:
        """Set attributes; a FIFO queue's new delay also holds for messages delayed now."""
        self.settings.change(attributes)
        self.changed_at = now
        if self.settings.is_fifo and "DelaySeconds" in attributes:
            for message in self._messages.values():
                if message.state is State.DELAYED:
                    due_at = message.sent_at + self.settings.delay_seconds
                    self._hold(message, State.DELAYED, due_at=due_at)
        self._sweep_at = 0.0
        self.on_change()

    def counts(self, now: float) -> Counts:
        self.promote(now)
        self._sweep(now)
        held = self._in_state
        return Counts(held[State.VISIBLE], held[State.IN_FLIGHT], held[State.DELAYED])

    def promote(self, now: float) -> None:
        """Show every message whose delay or visibility time-out has ended."""
        while self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)
            if _still_holds(entry):
                self._move(entry[2], State.VISIBLE)

    def next_due_at(self) -> float | None:
        """When the next message becomes visible by itself."""
        while self._due and not _still_holds(self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _sweep(self, now: float) -> None:
        """Drop what is older than the retention period; looks only when something may be."""
        if now < self._sweep_at:
            return
        retention = self.settings.retention_seconds
        for message in list(self._messages.values()):
            if message.sent_at + retention <= now:
                self._remove(message)
        ages = (message.sent_at for message in self._messages.values())
        self._sweep_at = min(ages, default=float("inf")) + retention

    def _hold(self, message: Message, state: State, *, due_at: float) -> None:
        """Make *message* delayed or in flight until *due_at*."""
        self._move(message, state)
        message.due_at = due_at
        message.alarm = next(self._serials)
        heapq.heappush(self._due, (due_at, message.alarm, message))
        held = self._in_state[State.DELAYED] + self._in_state[State.IN_FLIGHT]
        if len(self._due) > 2 * held + _SLACK:
            self._due = [entry for entry in self._due if _still_holds(entry)]
            heapq.heapify(self._due)

    def _remove(self, message: Message) -> None:
        del self._messages[message.key]
        self._move(message, State.OUTSIDE)

    def _move(self, message: Message, state: State) -> None:
        """Change the state of *message*; nothing else does."""
        was, message.state = message.state, state
        self._in_state[was] -= 1
        self._in_state[state] += 1
        if was is State.IN_FLIGHT and state is not State.IN_FLIGHT:
            self._order.landed(message)
        if state is State.VISIBLE:
            self._order.add(message)


def _still_holds(entry: tuple[float, int, Message]) -> bool:
    _, alarm, message = entry
    return message.alarm == alarm and message.state in (State.DELAYED, State.IN_FLIGHT)


def _count_receive(message: Message, now: float) -> None:
    message.receive_count += 1
    message.latest_received_at = now
    if message.first_received_at is None:
        message.first_received_at = now
