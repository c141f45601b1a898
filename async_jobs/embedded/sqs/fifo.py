"""Order and deduplication of a FIFO queue.

`FifoOrder` hands out the messages of one group strictly in the order they were
sent, and none of a group while one of it is in flight; one receive may take
several messages of a group. A returned message goes back to its old place.

`Deduplication` remembers for five minutes which deduplication ids were accepted,
whether or not the message is still there. Both are O(log n) in the backlog.
"""

from __future__ import annotations

import heapq
import random
from collections import deque

from async_jobs.embedded.sqs.message import Message, State

DEDUPLICATION_SECONDS = 300.0


class _Group:
    __slots__ = ("in_flight", "offered", "visible")

    def __init__(self) -> None:
        self.in_flight = 0
        self.offered: int | None = None
        self.visible: list[tuple[int, Message]] = []

    def oldest(self) -> int | None:
        """Key of the oldest message still visible; forgets deleted ones on the way."""
        while self.visible:
            key, message = self.visible[0]
            if message.state is State.VISIBLE:
                return key
            heapq.heappop(self.visible)
        return None


class FifoOrder:
    """The visible messages of a FIFO queue."""

    def __init__(self) -> None:
        self._groups: dict[str | None, _Group] = {}
        self._ready: list[tuple[int, str | None]] = []

    def add(self, message: Message) -> None:
        """*message* has become visible, for the first time or again."""
        group_id = message.draft.group_id
        group = self._groups.setdefault(group_id, _Group())
        heapq.heappush(group.visible, (message.key, message))
        self._offer(group_id, group)

    def take(self, limit: int) -> list[Message]:
        """Take up to *limit* messages out, counting them as in flight."""
        taken: list[Message] = []
        while self._ready and len(taken) < limit:
            key, group_id = heapq.heappop(self._ready)
            group = self._groups.get(group_id)
            if group is None or group.offered != key:
                continue
            group.offered = None
            if group.oldest() == key:
                taken += _take_from(group, limit - len(taken))
            else:
                self._offer(group_id, group)
        return taken

    def landed(self, message: Message) -> None:
        """*message* is no longer in flight: deleted, moved away or timed out."""
        group_id = message.draft.group_id
        group = self._groups[group_id]
        group.in_flight -= 1
        if group.in_flight == 0 and group.oldest() is None:
            del self._groups[group_id]
        else:
            self._offer(group_id, group)

    def shuffle(self, rng: random.Random) -> None:
        """Do nothing: a FIFO queue keeps its order even under the fault `reorder`."""

    def _offer(self, group_id: str | None, group: _Group) -> None:
        oldest = group.oldest()
        if oldest is not None and not group.in_flight and oldest != group.offered:
            group.offered = oldest
            heapq.heappush(self._ready, (oldest, group_id))


def _take_from(group: _Group, limit: int) -> list[Message]:
    taken: list[Message] = []
    while len(taken) < limit and group.oldest() is not None:
        taken.append(heapq.heappop(group.visible)[1])
    group.in_flight = len(taken)
    return taken


class Deduplication:
    """Which deduplication ids were accepted in the last five minutes."""

    def __init__(self) -> None:
        self._accepted: dict[tuple[str, str], Message] = {}
        self._expiries: deque[tuple[float, tuple[str, str]]] = deque()

    def find(self, scope: str, deduplication_id: str, now: float) -> Message | None:
        """The message accepted under this id, if that was less than five minutes ago."""
        while self._expiries and self._expiries[0][0] <= now:
            del self._accepted[self._expiries.popleft()[1]]
        return self._accepted.get((scope, deduplication_id))

    def remember(self, scope: str, deduplication_id: str, message: Message, now: float) -> None:
        self._accepted[scope, deduplication_id] = message
        self._expiries.append((now + DEDUPLICATION_SECONDS, (scope, deduplication_id)))
