"""The short ways to a decision lead to the same starts as `choose` among all lanes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from async_jobs.core.fairness import Terms
from async_jobs.simulation import desk, engine, ranking
from async_jobs.simulation.arrivals import Workload
from async_jobs.simulation.backlog import SimulatedLane, Waiting
from async_jobs.simulation.desk import Desk
from async_jobs.simulation.engine import simulate
from async_jobs.simulation.policies import Setup
from async_jobs.simulation.workloads import workload

from .made import crowded_workloads, job
from .made import workload as of
from .test_engine import Start, setups, watched


class LongWay(Desk):
    """Gives every decision to `choose`, with every lane that has a job."""

    def _next(self, now: float) -> Waiting | None:
        return self._chosen(now, pressure=self._is_pressed(now))

    def _contenders(self, terms: Terms) -> list[SimulatedLane]:
        return self.backlog.lanes()


def starts_of(jobs: Workload, setup: Setup, *, long_way: bool) -> list[Start]:
    """With every short way that is meant for very many lanes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "FEW_LANES", 0)
        patch.setattr(desk, "MOST_CHANGED", 3)
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


def test_thousands_of_tenants_that_come_and_go_are_ranked_as_by_the_long_way() -> None:
    draw = random.Random(3)
    jobs = [
        job(
            draw.uniform(0, 60),
            f"t{int(draw.paretovariate(0.3)) % 5_000}",
            runs=draw.lognormvariate(0, 1),
            tolerates=draw.choice([1, 20, 60]),
        )
        for _ in range(800)
    ]
    setup = Setup(capacity=12)

    short, long = (starts_of(of(*jobs), setup, long_way=way) for way in (False, True))

    assert short == long
