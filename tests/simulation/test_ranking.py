"""The short ways to a decision lead to the same starts as `choose` among all lanes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from async_jobs.core.fairness import Terms
from async_jobs.simulation import engine
from async_jobs.simulation.arrivals import Workload
from async_jobs.simulation.backlog import SimulatedLane, Waiting
from async_jobs.simulation.desk import Desk
from async_jobs.simulation.engine import simulate
from async_jobs.simulation.policies import Setup
from async_jobs.simulation.workloads import workload

from .made import crowded_workloads
from .test_engine import Start, setups, watched


class LongWay(Desk):
    """Gives every decision to `choose`, with every lane that has a job."""

    def _next(self, now: float) -> Waiting | None:
        return self._chosen(now, pressure=self._is_pressed(now))

    def _contenders(self, terms: Terms) -> list[SimulatedLane]:
        return self.backlog.lanes()


def starts_of(jobs: Workload, setup: Setup, *, long_way: bool) -> list[Start]:
    with pytest.MonkeyPatch.context() as patch:
        if long_way:
            patch.setattr(engine, "Desk", LongWay)
        return watched(jobs, setup).starts


@settings(max_examples=300)
@given(crowded_workloads(), setups)
def test_every_start_is_the_one_that_choose_names_among_all_lanes(
    jobs: Workload, setup: Setup
) -> None:
    assert starts_of(jobs, setup, long_way=False) == starts_of(jobs, setup, long_way=True)


@pytest.mark.parametrize("name", ["steady", "noisy", "cheat", "overload", "poison"])
def test_the_figures_of_a_workload_are_those_of_the_long_way(name: str) -> None:
    jobs = workload(name, seconds=60)
    setup = Setup(capacity=jobs.capacity // 2)

    short = simulate(jobs, setup)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Desk", LongWay)
        assert simulate(jobs, setup) == short
