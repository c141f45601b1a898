"""A stand is measured when it is up: what waits looks at what happened, not at the clock."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any, Self

import pytest

from bench import measures
from bench.contestants import HERE, Contestant, read
from bench.measures import Sizes
from bench.stand import Stand, StandError

OURS = read(HERE)[0]
FAR = math.inf
NO_SERVERS: Any = None
NO_TIME = Sizes(latency_seconds=0.0, idle_seconds=0.0, rates=(10.0,))


class SlowStand(Stand):
    """Says what the worker has done by lists, an entry for each look."""

    def __init__(self, *, started: list[int], left: list[int]) -> None:
        super().__init__(OURS, NO_SERVERS)
        self._started, self._left = iter(started), iter(left)
        self.looks = 0

    def enqueue(self, jobs: int, *, clients: int, bulk: bool) -> float:
        return 0.0

    def starts(self) -> list[tuple[int, int, int]]:
        self.looks += 1
        return [(0, 0, 0)] * next(self._started)

    def started(self) -> int:
        return len(self.starts())

    def left(self) -> int:
        self.looks += 1
        return next(self._left)

    def errors(self) -> str:
        return "what it printed"


def test_warming_up_ends_when_a_job_has_run_to_its_end() -> None:
    stand = SlowStand(started=[0, 0, 0, 1], left=[1, 1, 0])

    stand.warm_up()

    assert stand.looks == 7


def test_waiting_for_starts_ends_with_the_last_of_them() -> None:
    stand = SlowStand(started=[0, 1, 3], left=[])

    stand.wait_started(2, FAR)

    assert stand.looks == 3


def test_who_waits_in_vain_is_told_what_the_worker_printed() -> None:
    stand = SlowStand(started=[0, 0], left=[4])

    with pytest.raises(StandError, match=r"0 starts, 4 jobs left .*: what it printed"):
        stand.wait_started(1, time.monotonic() - 1.0)


class ToldStand:
    """Notes in which order it is told what."""

    told: list[str]

    def __init__(self, contestant: Contestant, servers: Any) -> None:
        type(self).told = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        pass

    def start(self) -> None:
        self.told.append("start")

    def warm_up(self) -> None:
        self.told.append("warm up")

    def paced(self, rate: float, seconds: float) -> range:
        self.told.append("paced")
        return range(0)

    def starts(self) -> list[tuple[int, int, int]]:
        return []


class ToldMeter:
    """Notes its readings with the stand."""

    def __init__(self, stand: ToldStand) -> None:
        self._stand = stand

    def read(self) -> str:
        self._stand.told.append("read")
        raise StopReading


class StopReading(Exception):
    """Far enough: the first counters were read."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[ToldStand]:
    monkeypatch.setattr(measures, "Stand", ToldStand)
    monkeypatch.setattr(measures, "Meter", ToldMeter)
    monkeypatch.setattr(measures, "AFTER_FIRST_SECONDS", 0.0)
    return ToldStand


@pytest.mark.parametrize("measure", [measures.latency, measures.idle])
def test_nothing_is_read_before_the_first_job_has_run(
    measure: measures.Measure, told: type[ToldStand]
) -> None:
    with pytest.raises(StopReading):
        list(measure(OURS, NO_SERVERS, NO_TIME))

    assert told.told == ["start", "warm up", "read"]
