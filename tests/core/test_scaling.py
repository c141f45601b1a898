"""Workers from deadlines: what waits, what keeps arriving, how long a worker takes to start."""

from __future__ import annotations

import pytest

from async_jobs.core.demand import Step, required_slots
from async_jobs.core.forecast import Demand
from async_jobs.core.scaling import Load, arrivals_of, scaling


def load(*profile: Step, **changes: object) -> Load:
    usual: dict[str, object] = {
        "use_case": "mail",
        "profile": profile,
        "in_flight": 0,
        "capacity": 1_000,
        "mean_run_seconds": 10.0,
    }
    return Load(**usual | changes)  # type: ignore[arg-type] # fields of a Load


def workers(*loads: Load, lead_seconds: float = 0.0, within_seconds: float = 600.0) -> int:
    found = scaling(
        loads, slots_per_worker=10, lead_seconds=lead_seconds, within_seconds=within_seconds
    )
    return found.workers


def test_the_same_jobs_need_fewer_workers_the_later_they_are_due() -> None:
    soon, later = load(Step(60.0, 700)), load(Step(600.0, 700))

    assert (workers(soon), workers(later)) == (10, 2)


def test_what_is_due_after_the_horizon_does_not_count() -> None:
    tomorrow = load(Step(60.0, 70), Step(86_400.0, 1_000_000))

    assert workers(tomorrow) == 1


def test_deadlines_are_nearer_by_the_time_that_a_worker_takes_to_start() -> None:
    due = load(Step(300.0, 620))

    assert workers(due) == 2
    assert workers(due, lead_seconds=240.0) == 9


def test_jobs_that_keep_arriving_need_slots_though_nothing_waits() -> None:
    steady = load(arrivals=[(60.0, 5.0)])

    assert workers(steady) == 5


def test_arrivals_join_the_work_that_is_due() -> None:
    profile = [Step(600.0, 610)]

    alone = required_slots(profile, mean_run_seconds=10.0, in_flight=0)
    joined = required_slots(
        profile, mean_run_seconds=10.0, in_flight=0, arrivals=[(90.0, 1.0), (700.0, 1.0)]
    )

    assert (alone.slots, joined.slots) == (10, 20)
    tight = required_slots(profile, mean_run_seconds=10.0, in_flight=0, arrivals=[(0.0, 1.0)])
    assert tight.slots == 20


def test_use_cases_share_workers() -> None:
    some = load(Step(60.0, 21))

    found = scaling([some, some], slots_per_worker=10, lead_seconds=0.0)

    assert [each.workers for each in found.use_cases] == [1, 1]
    assert (found.slots, found.workers) == (6, 1)


def test_slots_beyond_the_capacity_are_not_asked_for() -> None:
    found = scaling([load(Step(60.0, 7_000), capacity=30)], slots_per_worker=10, lead_seconds=0.0)

    assert (found.workers, found.use_cases[0].wanted_slots) == (3, 1_000)


@pytest.mark.parametrize("cut", [True, False])
def test_a_count_that_was_cut_off_is_told(cut: bool) -> None:
    found = scaling([load(Step(60.0, 700, cut))], slots_per_worker=10)

    assert found.use_cases[0].at_least is cut


def test_arrivals_are_a_rate_for_each_tolerance() -> None:
    demand = Demand(tolerances=[60.0, 60.0, 5.0], arriving_seconds=6.0)

    assert sum(rate for _, rate in arrivals_of(demand)) == pytest.approx(0.5)
    assert arrivals_of(Demand()) == ()
