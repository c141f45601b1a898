"""Which waiting jobs get the free slots: slack first, fair under pressure. Pure.

While no promise is broken, jobs start in the order of their deadlines, whoever
they belong to: that meets every deadline that can be met (Liu & Layland 1973),
and any other order burns slack. From the first late job on (`pressure`):

    late lane       late jobs leave the order: they get every tenth start, and whatever is idle.
                    Otherwise each job waits behind older late ones until all are late.
    postponement    a tenant above its share competes with a later deadline than its own: the
                    one its share would have kept, eff = now + over x mean run time. This is
                    the constant-bandwidth-server rule of Linux's SCHED_DEADLINE, with tenants
                    for tasks. Nobody is shut out; the excess waits.
    priority        ranks the jobs of tenants within their shares; it never buys a larger share.
    retry budget    at most every tenth start is a retry while first attempts wait.

A lane is the late or the timely part of one flow, earliest deadline first. The
scheduler fills lanes from the table, `simulate` from memory; both call `choose`.
Times are seconds on any one clock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

LATE_SHARE = 0.1
RETRY_SHARE = 0.1
MOST_CREDIT = 2.0
PRESSURE_AFTER_DROP_SECONDS = 10.0
"""Pressure outlasts each late job by so long where none is seen waiting: they are not run."""

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

Rank = tuple[float, ...]


class Flow(NamedTuple):
    """Jobs that the scheduler treats alike: what it can rank, shut or probe on its own."""

    tenant_id: str
    type: str
    is_retry: bool = False
    priority: int = 0


class Head(NamedTuple):
    """The most urgent job of a lane: its deadline, and what breaks a tie."""

    deadline: float
    age: Any = 0


class Lane(Protocol[T_co]):
    """The late or the timely jobs of one flow, earliest deadline first."""

    flow: Flow
    late: bool

    def head(self) -> Head | None:
        """The next job, or None when the lane is empty."""

    def take(self) -> T_co:
        """Remove the next job and return it."""


class Listed(Generic[T]):
    """A lane of jobs that were read beforehand; `cut` if there are more of them to read."""

    def __init__(
        self, flow: Flow, jobs: Iterable[tuple[Head, T]], *, late: bool, cut: bool = False
    ) -> None:
        self.flow = flow
        self.late = late
        self.cut = cut
        self._jobs = list(jobs)
        self._next = 0

    def head(self) -> Head | None:
        return self._jobs[self._next][0] if self._next < len(self._jobs) else None

    def take(self) -> T:
        self._next += 1
        return self._jobs[self._next - 1][1]

    @property
    def is_dry(self) -> bool:
        """Whether all that was read has been taken, and there is more to read."""
        return self.cut and self.head() is None

    def rewind(self) -> None:
        """As if nothing had been taken."""
        self._next = 0


@dataclass(slots=True)
class Credit:
    """A share of the starts under pressure: spend one where one has been earned."""

    share: float
    earned: float = 0.0

    @property
    def is_enough(self) -> bool:
        return self.earned >= 1 - 1e-9  # ten tenths are a little less than one

    def count(self, *, spent: bool) -> None:
        self.earned = self.earned - 1 if spent else min(MOST_CREDIT, self.earned + self.share)


@dataclass(slots=True)
class Credits:
    """What a scheduler remembers from one pass to the next."""

    late: Credit = field(default_factory=lambda: Credit(LATE_SHARE))
    retry: Credit = field(default_factory=lambda: Credit(RETRY_SHARE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the ranking of one pass depends on.

    `total_weight` is that of all tenants with waiting or running jobs;
    `mean_seconds` how long jobs of a flow run, on average. A wrong one costs
    precision of the shares, never a deadline that could be kept.
    """

    capacity: float
    now: float
    pressure: bool
    total_weight: float
    weight_of: Callable[[str], float]
    mean_seconds: Callable[[Flow], float]

    def share_of(self, tenant_id: str) -> float:
        """Slots that are the tenant's own when everybody wants slots."""
        weight = self.weight_of(tenant_id)
        return self.capacity * weight / max(self.total_weight, weight)

    def excess(self, tenant_id: str, held: int) -> float:
        """By what part of its share a tenant would exceed it with one slot more than *held*."""
        return max(0.0, (held + 1) / self.share_of(tenant_id) - 1)

    def rank(self, flow: Flow, deadline: float, *, late: bool, held: int) -> Rank:
        """The flow's place among those of its kind (late or timely); the least goes first."""
        if not self.pressure:
            return (deadline, -flow.priority)
        over = self.excess(flow.tenant_id, held)
        if late:
            return (-flow.priority, over, deadline)
        if not over:
            return (0, -flow.priority, deadline)
        postponed = self.now + over * self.mean_seconds(flow)
        return (1, 0, max(deadline, postponed), -flow.priority)


def free_slots(capacity: int, held: Mapping[str, int]) -> int:
    """How many more leases fit under *capacity*, given what each tenant holds."""
    return max(0, capacity - sum(held.values()))


def choose(
    lanes: Iterable[Lane[T]],
    terms: Terms,
    *,
    slots: int,
    held: Mapping[str, int],
    room: Mapping[str, int],
    credits: Credits,
) -> list[T]:
    """Up to *slots* jobs, in the order in which they deserve a slot.

    *held* is what each tenant holds already. *room* is how many more it may get in
    this pass; a tenant it does not name has no bound but the slots. Ends early when
    a lane that was cut runs dry, because the next job might be the one after it.
    """
    draw = _Draw(lanes, terms, held, room)
    chosen: list[T] = []
    while len(chosen) < slots and not draw.blind:
        lane = draw.best(credits)
        if lane is None:
            break
        chosen.append(draw.take(lane))
    return chosen


class _Draw(Generic[T]):
    """Lanes of four kinds in heaps; ranks are renewed only where they come up.

    That suffices because a rank only ever grows: by a later head, or by a tenant
    that holds more.
    """

    def __init__(
        self,
        lanes: Iterable[Lane[T]],
        terms: Terms,
        held: Mapping[str, int],
        room: Mapping[str, int],
    ) -> None:
        self.blind = False
        self._terms = terms
        self._held = Counter(held)
        self._room = dict(room)
        self._heaps: dict[tuple[bool, bool], list[tuple[Rank, Any, int, Lane[T]]]] = {
            (late, retry): [] for late in (False, True) for retry in (False, True)
        }
        for number, lane in enumerate(lanes):
            if (entry := self._entry(lane, number)) is not None:
                self._heaps[lane.late, lane.flow.is_retry].append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)

    def best(self, credits: Credits) -> Lane[T] | None:
        """The lane whose head goes next, counted against the credits."""
        tops = {kind: entry for kind in self._heaps if (entry := self._top(kind)) is not None}
        if not tops:
            return None
        first_waits = (False, False) in tops or (True, False) in tops
        if self._terms.pressure and first_waits and not credits.retry.is_enough:
            tops = {kind: entry for kind, entry in tops.items() if not kind[1]}
        timely = [entry for kind, entry in tops.items() if not kind[0]]
        late = [entry for kind, entry in tops.items() if kind[0]]
        goes_late = bool(late) and (not timely or credits.late.is_enough)
        lane = min(late if goes_late else timely)[3]
        if self._terms.pressure:
            credits.late.count(spent=goes_late and bool(timely))
            credits.retry.count(spent=lane.flow.is_retry and first_waits)
        return lane

    def take(self, lane: Lane[T]) -> T:
        """Give a slot to the head of the lane that `best` named."""
        tenant = lane.flow.tenant_id
        self._held[tenant] += 1
        if tenant in self._room:
            self._room[tenant] -= 1
        job = lane.take()
        self.blind = lane.head() is None and getattr(lane, "cut", False)
        return job

    def _top(self, kind: tuple[bool, bool]) -> tuple[Rank, Any, int, Lane[T]] | None:
        heap = self._heaps[kind]
        while heap:
            entry = self._entry(heap[0][3], heap[0][2])
            if entry == heap[0]:
                return entry
            if entry is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, entry)
        return None

    def _entry(self, lane: Lane[T], number: int) -> tuple[Rank, Any, int, Lane[T]] | None:
        head, flow = lane.head(), lane.flow
        if head is None or self._room.get(flow.tenant_id, 1) <= 0:
            return None
        held = self._held[flow.tenant_id]
        rank = self._terms.rank(flow, head.deadline, late=lane.late, held=held)
        return (rank, head.age, number, lane)
