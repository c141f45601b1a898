"""Which visible message of a standard queue is handed out next.

Oldest first, except that messages of a noisy group wait behind all others. A
group (one MessageGroupId) is noisy while it has at least 30 messages in flight
and more than a tenth of all in flight; a message without a group is a group of
its own and never noisy.

Model: each group keeps its visible messages in the order in which they became
visible. A group with visible messages stands either in the heap `_quiet`, by
its oldest message, or in the set `_noisy`. More than a tenth means nine noisy
groups at most, so looking at all of them at every take is cheap; everything
else is O(log groups). A deleted message is skipped when it is met.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from itertools import count, islice

from async_jobs.embedded.sqs.message import Message, State

NOISY_SHARE = 0.1
NOISY_IN_FLIGHT = 30
REORDER_WINDOW = 100


class _Group:
    __slots__ = ("id", "in_flight", "stands_at", "visible")

    def __init__(self, group_id: str | None) -> None:
        self.id = group_id
        self.in_flight = 0
        self.stands_at: int | None = None
        self.visible: deque[tuple[int, Message]] = deque()

    def oldest(self) -> int | None:
        """Place of the oldest message still visible; forgets deleted ones on the way."""
        while self.visible:
            place, message = self.visible[0]
            if message.state is State.VISIBLE:
                return place
            self.visible.popleft()
        return None


class FairOrder:
    """The visible messages of a standard queue."""

    def __init__(self) -> None:
        self._places = count()
        self._groups: dict[str | None, _Group] = {}
        self._quiet: list[tuple[int, int, _Group]] = []
        self._noisy: set[_Group] = set()
        self._in_flight = 0

    def add(self, message: Message) -> None:
        """*message* has become visible, for the first time or again."""
        group = self._group_of(message)
        is_first = not group.visible
        group.visible.append((next(self._places), message))
        if is_first:
            self._stand_in_line(group)

    def take(self, limit: int) -> list[Message]:
        """Take up to *limit* messages out, counting them as in flight."""
        taken: list[Message] = []
        while len(taken) < limit:
            group = self._next_group()
            if group is None:
                break
            taken.append(group.visible.popleft()[1])
            group.in_flight += 1
            self._in_flight += 1
            self._stand_in_line(group)
        return taken

    def landed(self, message: Message) -> None:
        """*message* is no longer in flight: deleted, moved away or timed out."""
        group = self._group_of(message)
        group.in_flight -= 1
        self._in_flight -= 1
        if group.oldest() is None:
            self._forget(group)

    def shuffle(self, rng: random.Random) -> None:
        """Mix the oldest messages of every group (fault `reorder`)."""
        for group in self._groups.values():
            window = list(islice(group.visible, REORDER_WINDOW))
            mixed = [message for _, message in window]
            rng.shuffle(mixed)
            for at, ((place, _), message) in enumerate(zip(window, mixed, strict=True)):
                group.visible[at] = (place, message)

    def _group_of(self, message: Message) -> _Group:
        group_id = message.draft.group_id
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = _Group(group_id)
        return group

    def _next_group(self) -> _Group | None:
        self._hush()
        while self._quiet:
            place, _, group = heapq.heappop(self._quiet)
            if place != group.stands_at:
                continue
            group.stands_at = None
            oldest = group.oldest()
            if oldest is None:
                self._forget(group)
            elif self._is_noisy(group):
                self._noisy.add(group)
            elif oldest == place:
                return group
            else:
                self._stand_in_line(group)
        return self._oldest_noisy()

    def _oldest_noisy(self) -> _Group | None:
        oldest: tuple[int, _Group] | None = None
        for group in list(self._noisy):
            place = group.oldest()
            if place is None:
                self._noisy.discard(group)
            elif oldest is None or place < oldest[0]:
                oldest = place, group
        if oldest is None:
            return None
        self._noisy.discard(oldest[1])
        return oldest[1]

    def _forget(self, group: _Group) -> None:
        """Drop a group without visible messages, unless some are in flight."""
        if not group.in_flight and self._groups.get(group.id) is group:
            self._noisy.discard(group)
            del self._groups[group.id]

    def _hush(self) -> None:
        """Put groups that are noisy no more back in line."""
        for group in [group for group in self._noisy if not self._is_noisy(group)]:
            self._noisy.discard(group)
            self._stand_in_line(group)

    def _is_noisy(self, group: _Group) -> bool:
        return (
            group.id is not None
            and group.in_flight >= NOISY_IN_FLIGHT
            and group.in_flight > NOISY_SHARE * self._in_flight
        )

    def _stand_in_line(self, group: _Group) -> None:
        oldest = group.oldest()
        if oldest is not None and oldest != group.stands_at:
            group.stands_at = oldest
            heapq.heappush(self._quiet, (oldest, next(self._places), group))
