"""Narrows the lanes down to those that can win, so that a choice does not look at all. Pure.

`core.fairness.choose` ranks every lane it is given; for one free slot only the best lane of
each of its four kinds (late or timely, first attempts or retries) can win. The
ranking keeps each kind in a heap by `Terms.rank`, and `choose` decides among the heads.

What is in a heap may be outdated only towards zero, so it is enough to renew what comes up.
A rank grows by itself (time passes, a tenant gets a slot, another tenant appears). Where
it may fall the lane is ranked again at once: `renew` after an arrival, a finish or a new
mean run time. Among very many lanes that would be too much for what moves all of them a
little, tenants that leave and the mean run time of a whole type. So the heaps hold ranks as they
would be with somewhat less weight and shorter runs (`FLOOR`), and those that come up are
compared by their true ones; `renew_all` when the weight has fallen below that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from async_jobs.core.fairness import Flow, Rank, Terms
from async_jobs.simulation.backlog import SimulatedLane

Entry: TypeAlias = tuple[Rank, int, int, SimulatedLane]
FLOOR = 0.95
FEW_LANES = 64
"""Ranking all of so few lanes anew is cheaper than looking at several of them each time."""

Room = Callable[[str], int]
"""How many more slots a tenant may get."""


class Ranking:
    """The lanes of a backlog by kind, best first."""

    def __init__(
        self,
        held: Mapping[str, int],
        room: Room | None,
        least_mean: Callable[[Flow], float],
    ) -> None:
        self._held = held
        self._least_mean = least_mean
        self._room = room
        self._heaps: list[list[Entry]] = [[], [], [], []]
        self._count = 0
        self._least_weight = 0.0

    def holds(self, total_weight: float) -> bool:
        """Whether no rank has fallen below the one in the heaps."""
        return total_weight >= self._least_weight

    def renew_all(self, lanes: Sequence[SimulatedLane], terms: Terms) -> None:
        """Rank all lanes anew."""
        self._heaps = [[], [], [], []]
        self._least_weight = terms.total_weight * (FLOOR if len(lanes) > FEW_LANES else 1.0)
        floor = self._floor(terms)
        for lane in lanes:
            if (entry := self._ranked(lane, floor)) is not None:
                self._heaps[_kind(lane)].append(entry)
            lane.entry = entry
        for heap in self._heaps:
            heapify(heap)

    def renew(self, lanes: Iterable[SimulatedLane], terms: Terms) -> None:
        """Rank these lanes anew: their ranks may have fallen."""
        floor = self._floor(terms)
        for lane in lanes:
            self._put(lane, floor)

    def best(self, terms: Terms) -> list[SimulatedLane]:
        """The best lane of each kind that has one."""
        floor = self._floor(terms)
        found = (self._top(heap, terms, floor) for heap in self._heaps)
        return [lane for lane in found if lane is not None]

    def _floor(self, terms: Terms) -> Terms:
        return replace(terms, total_weight=self._least_weight, mean_seconds=self._least_mean)

    def _top(self, heap: list[Entry], terms: Terms, floor: Terms) -> SimulatedLane | None:
        best: Entry | None = None
        looked_at = []
        while heap and (best is None or heap[0][:3] < best[:3]):
            entry = heappop(heap)
            lane = entry[3]
            if lane.entry is not entry:
                continue
            true = self._ranked(lane, terms)
            if best is None and true is not None and true[:2] == entry[:2]:
                heappush(heap, entry)
                return lane
            looked_at.append(lane)
            if true is not None and (best is None or true[:3] < best[:3]):
                best = true
        for lane in looked_at:
            self._put(lane, floor)
        return None if best is None else best[3]

    def _put(self, lane: SimulatedLane, floor: Terms) -> None:
        lane.entry = entry = self._ranked(lane, floor)
        if entry is not None:
            heappush(self._heaps[_kind(lane)], entry)

    def _ranked(self, lane: SimulatedLane, terms: Terms) -> Entry | None:
        head, tenant = lane.head(), lane.flow.tenant_id
        if head is None or (self._room is not None and self._room(tenant) <= 0):
            return None
        rank = terms.rank(lane.flow, head.deadline, late=lane.late, held=self._held.get(tenant, 0))
        self._count += 1
        return (rank, head.age, self._count, lane)


def _kind(lane: SimulatedLane) -> int:
    return 2 * lane.late + lane.flow.is_retry
