"""The jobs that wait, in two orders at once: the policy's, and by flow. Pure.

    in order    one heap of all jobs that are not late; its head is the next one while nothing
                is late and nothing is bounded
    by flow     the timely and the late jobs of each flow, in heaps

Both orders agree: the first job of all is the first of its flow. So a start from the
heap of all takes the head of a lane too, and a start from a lane leaves a mark behind that
the heap of all skips. What becomes late is what the heap of all begins with.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from async_jobs.core.fairness import Flow, Head
from async_jobs.simulation.arrivals import Arrival


@dataclass(slots=True, eq=False)
class Waiting:
    """A job that waits for its next attempt."""

    arrival: Arrival
    attempt: int
    run_at: float
    deadline_at: float
    lanes: FlowLanes
    is_started: bool = False
    is_late: bool = False


class Place(NamedTuple):
    """A job's place among all: what the policy ranks by, then priority, then age."""

    urgency: float
    below: int
    age: int
    job: Waiting


class SimulatedLane:
    """A lane of jobs in memory."""

    __slots__ = ("entry", "flow", "late", "places")

    def __init__(self, flow: Flow, *, late: bool) -> None:
        self.flow = flow
        self.late = late
        self.places: list[Place] = []
        self.entry: object = None
        """Where the lane stands in the ranking, if it does."""

    def head(self) -> Head | None:
        if not self.places:
            return None
        urgency, _, age, _ = self.places[0]
        return Head(urgency, age)

    def take(self) -> Waiting:
        job = heappop(self.places)[3]
        job.is_started = True
        return job


class FlowLanes:
    """The timely and the late lane of one flow."""

    __slots__ = ("late", "timely")

    def __init__(self, flow: Flow) -> None:
        self.timely = SimulatedLane(flow, late=False)
        self.late = SimulatedLane(flow, late=True)


class Backlog:
    """All waiting jobs of a use case."""

    def __init__(self) -> None:
        self.waiting = 0
        self.late = 0
        self.lanes_of: dict[str, list[SimulatedLane]] = {}
        self._flows: dict[Flow, FlowLanes] = {}
        self._in_order: list[Place] = []
        self._age = 0

    def add(self, arrival: Arrival, *, attempt: int, run_at: float, urgency: float) -> Place:
        """A job has become due."""
        flow = Flow(arrival.tenant_id, arrival.type, attempt > 1, arrival.priority)
        lanes = self._flows.get(flow) or self._opened(flow)
        deadline_at = run_at + arrival.delay_tolerance_seconds
        self._age += 1
        job = Waiting(arrival, attempt, run_at, deadline_at, lanes)
        place = Place(urgency, -arrival.priority, self._age, job)
        heappush(self._in_order, place)
        heappush(lanes.timely.places, place)
        self.waiting += 1
        return place

    def first(self) -> Place | None:
        """The next job in order of those that are not late."""
        in_order = self._in_order
        while in_order and in_order[0][3].is_started:
            heappop(in_order)
        return in_order[0] if in_order else None

    def take_first(self) -> Waiting:
        """Remove the job that `first` gave."""
        job = heappop(self._in_order)[3]
        job.lanes.timely.take()
        self.waiting -= 1
        return job

    def taken(self, job: Waiting) -> None:
        """A job has been taken from its lane."""
        self.waiting -= 1
        self.late -= job.is_late

    def now_late(self) -> SimulatedLane:
        """Move the job that `first` gave to its late lane, which is returned."""
        place = heappop(self._in_order)
        job = place.job
        job.is_late = True
        heappop(job.lanes.timely.places)
        heappush(job.lanes.late.places, place)
        self.late += 1
        return job.lanes.late

    def forget(self, tenant_id: str) -> None:
        """A tenant has nothing to do any more: its empty lanes are in nobody's way."""
        for lane in self.lanes_of.pop(tenant_id)[::2]:
            del self._flows[lane.flow]

    def lanes(self) -> list[SimulatedLane]:
        """Every lane with jobs."""
        return [each for lanes in self.lanes_of.values() for each in lanes if each.places]

    def _opened(self, flow: Flow) -> FlowLanes:
        lanes = self._flows[flow] = FlowLanes(flow)
        self.lanes_of.setdefault(flow.tenant_id, []).extend((lanes.timely, lanes.late))
        return lanes
