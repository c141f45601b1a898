"""The real scheduler and its SQL, on a virtual clock, do what the simulation says."""

from __future__ import annotations

import pytest

from async_jobs.simulation.engine import simulate
from async_jobs.simulation.policies import Setup
from async_jobs.simulation.workloads import workload
from bench.replay import replayed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seconds", "capacity"), [("cheat", 30.0, 16), ("overload", 30.0, 8)]
)
async def test_the_real_scheduler_is_late_as_often_as_the_simulated(
    emptied_database: str, name: str, seconds: float, capacity: int
) -> None:
    load = workload(name, seconds=seconds)
    told = simulate(load, Setup(capacity=capacity))

    replay = await replayed(emptied_database, load, capacity=capacity)

    assert told.late_share > 0.02
    assert replay.most_running == capacity
    assert replay.shares.jobs["all"] == len(load.arrivals)
    assert replay.shares.percent("all") == pytest.approx(100 * told.late_share, abs=1)
    if told.quiet_late_share is not None:
        assert replay.shares.percent("quiet") == pytest.approx(100 * told.quiet_late_share, abs=1)
    top = 100 * (told.top_priority_late_share or 0.0)
    assert replay.shares.percent("top") == pytest.approx(top, abs=1)
