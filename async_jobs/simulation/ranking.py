"""Narrows the lanes down to those that can win, so that a choice does not look at all. Pure.

`core.fairness.choose` ranks every lane it is given; for one free slot only the best lane of
each of its four kinds (late or timely, first attempts or retries) can win. The
ranking keeps each kind in a heap by `Terms.rank`, and `choose` decides among the heads.

What is in a heap may be outdated only towards zero, so it is enough to renew what comes up.
A rank grows by itself (time passes, a tenant gets a slot, another tenant appears). Where
it may fall the lane is ranked again at once: `renew` after an arrival, a finish or a new
mean run time, `renew_all` when a tenant has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from async_jobs.core.fairness import Rank, Terms
from async_jobs.simulation.backlog import SimulatedLane

Entry: TypeAlias = tuple[Rank, int, int, SimulatedLane]
Room = Callable[[str], int]
"""How many more slots a tenant may get."""


class Ranking:
    """The lanes of a backlog by kind, best first."""

    def __init__(self, held: Mapping[str, int], room: Room | None) -> None:
        self._held = held
        self._room = room
        self._heaps: list[list[Entry]] = [[], [], [], []]
        self._count = 0

    def renew_all(self, lanes: Iterable[SimulatedLane], terms: Terms) -> None:
        """Rank all lanes anew."""
        self._heaps = [[], [], [], []]
        for lane in lanes:
            if (entry := self._ranked(lane, terms)) is not None:
                self._heaps[_kind(lane)].append(entry)
            lane.entry = entry
        for heap in self._heaps:
            heapify(heap)

    def renew(self, lanes: Iterable[SimulatedLane], terms: Terms) -> None:
        """Rank these lanes anew: their ranks may have fallen."""
        for lane in lanes:
            entry = self._ranked(lane, terms) if lane.places else None
            lane.entry = entry
            if entry is not None:
                heappush(self._heaps[_kind(lane)], entry)

    def best(self, terms: Terms) -> list[SimulatedLane]:
        """The best lane of each kind that has one."""
        found = (self._top(heap, terms) for heap in self._heaps)
        return [lane for lane in found if lane is not None]

    def _top(self, heap: list[Entry], terms: Terms) -> SimulatedLane | None:
        while heap:
            entry = heap[0]
            lane = entry[3]
            if lane.entry is not entry:
                heappop(heap)
                continue
            renewed = self._ranked(lane, terms)
            if renewed is not None and renewed[:2] == entry[:2]:
                return lane
            heappop(heap)
            lane.entry = renewed
            if renewed is not None:
                heappush(heap, renewed)
        return None

    def _ranked(self, lane: SimulatedLane, terms: Terms) -> Entry | None:
        head, tenant = lane.head(), lane.flow.tenant_id
        if head is None or (self._room is not None and self._room(tenant) <= 0):
            return None
        rank = terms.rank(lane.flow, head.deadline, late=lane.late, held=self._held.get(tenant, 0))
        self._count += 1
        return (rank, head.age, self._count, lane)


def _kind(lane: SimulatedLane) -> int:
    return 2 * lane.late + lane.flow.is_retry
