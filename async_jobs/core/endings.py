"""What a worker counts of the attempts it ran, and what of it is worth telling. Pure.

    nothing failed       nothing is told; the counts are forgotten after every look
    a flow fails here    its endings are told, the good ones too, or the share would be wrong
    a flow is watched    because it fails in some other worker: told as well

So the cost of a healthy system is one short look every few seconds in a worker that
runs jobs, and none in one that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

LOOK_EVERY_SECONDS = 2.0
MOST_FLOWS = 500


class Sign(Enum):
    """What the ending of an attempt says about its flow; a stop or a cancel says nothing."""

    WORKS = auto()
    FAILS = auto()
    PRESSED = auto()


class FlowKey(NamedTuple):
    """The jobs of one type of one tenant in one use case: what a breaker stands before."""

    use_case: str
    tenant_id: str
    type: str


@dataclass(slots=True)
class Count:
    """Attempts of one flow since they were last told."""

    ended: int = 0
    failed: int = 0
    probe_succeeded: bool = False


@dataclass(frozen=True, slots=True)
class Endings:
    """One report: counts by flow, and the use cases whose handlers reported backpressure."""

    counts: Mapping[FlowKey, Count] = field(default_factory=dict)
    pressed: frozenset[str] = frozenset()

    @property
    def use_cases_to_wake(self) -> set[str]:
        """Use cases whose scheduler should look at once."""
        probed = {flow.use_case for flow, count in self.counts.items() if count.probe_succeeded}
        return probed | self.pressed


class Tally:
    """The counts of one worker."""

    def __init__(self) -> None:
        self._counts: dict[FlowKey, Count] = {}
        self._pressed: set[str] = set()
        self._watched: set[FlowKey] = set()
        self._looked_at = -LOOK_EVERY_SECONDS

    @property
    def is_empty(self) -> bool:
        """Whether nothing ended since the last report."""
        return not self._counts and not self._pressed

    @property
    def use_cases(self) -> set[str]:
        """Where something ended."""
        return {flow.use_case for flow in self._counts}

    def add(self, flow: FlowKey, sign: Sign, *, probe: bool = False) -> None:
        """An attempt of *flow* ended."""
        if sign is Sign.PRESSED:
            self._pressed.add(flow.use_case)
            return
        count = self._counts.get(flow)
        if count is None:
            count = self._counts[flow] = Count()
        count.ended += 1
        count.failed += sign is Sign.FAILS
        count.probe_succeeded |= probe and sign is Sign.WORKS

    def take(self, *, at: float) -> Endings | None:
        """Take out what is to be told now: nothing yet (None), or an empty report to only look."""
        flows = [flow for flow, count in self._counts.items() if self._worth_telling(flow, count)]
        if not (flows or self._pressed or self._looks(at)):
            return None
        counts = {flow: self._counts.pop(flow) for flow in flows[:MOST_FLOWS]}
        pressed, self._pressed = frozenset(self._pressed), set()
        return Endings(counts, pressed)

    def told(self, endings: Endings, watched: Iterable[FlowKey], *, at: float) -> None:
        """*endings* reached the database, which knows these flows to be *watched*."""
        failed = [flow for flow, count in endings.counts.items() if count.failed]
        self._watched = {*watched, *failed}
        self._looked_at = at
        self._counts = {
            flow: count for flow, count in self._counts.items() if self._worth_telling(flow, count)
        }

    def put_back(self, endings: Endings) -> None:
        """*endings* did not reach the database; they are told with what comes next."""
        for flow, untold in endings.counts.items():
            count = self._counts.setdefault(flow, Count())
            count.ended += untold.ended
            count.failed += untold.failed
            count.probe_succeeded |= untold.probe_succeeded
        self._pressed |= endings.pressed

    def _worth_telling(self, flow: FlowKey, count: Count) -> bool:
        return count.failed > 0 or count.probe_succeeded or flow in self._watched

    def _looks(self, at: float) -> bool:
        return bool(self._counts) and at - self._looked_at >= LOOK_EVERY_SECONDS
