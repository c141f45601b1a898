"""When a job will start: by what waits before it, and how fast that goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.forecast import DISPATCH_SECONDS, Demand, Finished, pace, starts_in

from .forecast_stage import Played, Stage, arrivals, burst

MEASURED = Demand(
    finished=[Finished(due_ago=9.0, started_ago=9.0, finished_ago=8.0) for _ in range(5)]
)
SHORT = (5, 15, 30, 60, 120)


def seconds_until_start(demand: Demand, capacity: int = 10, **job: float) -> float:
    expected = pace(demand, capacity)
    assert expected is not None
    # mypy cannot see which parameters a mapping of floats stands for.
    return starts_in(demand, expected, **{"slack_seconds": 60.0, **job})  # type: ignore[arg-type] # values of several types


def waiting(*slacks: float, **more: object) -> Demand:
    places = range(1, len(slacks) + 1)
    # mypy cannot see which fields a mapping stands for.
    return replace(MEASURED, marks=sorted(slacks), places=list(places), **more)  # type: ignore[arg-type] # the same


def backlog_of(workers: int, seconds: float = 30.0) -> list[Finished]:
    """The last jobs of a backlog, one second each, that *workers* worked off side by side."""
    return [
        Finished(
            due_ago=seconds + 60, started_ago=1 + number / workers, finished_ago=number / workers
        )
        for number in range(int(seconds * workers))
    ]


def test_nothing_measured_means_no_forecast() -> None:
    assert pace(Demand(in_flight=3, marks=[1.0], places=[1]), 10) is None


def test_a_free_slot_means_at_once() -> None:
    assert seconds_until_start(replace(MEASURED, in_flight=9)) == DISPATCH_SECONDS


def test_what_waits_with_an_earlier_deadline_goes_first() -> None:
    demand = waiting(*[50.0] * 20, *[70.0] * 500, in_flight=10)

    assert seconds_until_start(demand) == pytest.approx(2.1 + DISPATCH_SECONDS)


def test_with_late_jobs_a_tenth_of_the_starts_is_theirs() -> None:
    demand = waiting(*[50.0] * 20, in_flight=10, any_late=True)

    assert seconds_until_start(demand) == pytest.approx(2.1 / 0.9 + DISPATCH_SECONDS)


def test_fewer_workers_than_capacity_show_in_the_completions_while_jobs_waited() -> None:
    expected = pace(Demand(finished=backlog_of(workers=4)), 40)

    assert expected is not None
    assert expected.per_second == pytest.approx(4, rel=0.1)
    assert expected.slots == pytest.approx(4, rel=0.1)


def test_completions_while_nobody_waited_say_nothing_about_the_pace() -> None:
    calm = [
        Finished(due_ago=n + 1.05, started_ago=n + 1.0, finished_ago=float(n)) for n in range(60)
    ]
    expected = pace(Demand(finished=calm), 40)

    assert expected is not None
    assert expected.per_second == pytest.approx(40)


def test_a_queue_that_stands_still_is_seen_by_how_long_its_first_job_has_waited() -> None:
    stuck = waiting(5.0, 5.0, head_waits=300.0, in_flight=10)

    assert seconds_until_start(stuck) > 20


def test_earlier_deadlines_that_are_still_to_come_are_foreseen_from_what_came_lately() -> None:
    calm = waiting(*[50.0] * 50, in_flight=10)
    urgent = replace(calm, tolerances=[5.0] * 500, arriving_seconds=100.0)
    patient = replace(calm, tolerances=[600.0] * 500, arriving_seconds=100.0)

    assert seconds_until_start(patient) == seconds_until_start(calm)
    assert seconds_until_start(urgent) > 1.9 * seconds_until_start(calm)


def test_a_job_of_the_future_starts_no_earlier_and_finds_the_backlog_smaller() -> None:
    demand = waiting(*[50.0] * 100, in_flight=10)

    assert seconds_until_start(demand, run_in_seconds=30.0) == pytest.approx(30.1)
    soon = seconds_until_start(demand, run_in_seconds=5.0)
    assert soon == pytest.approx(seconds_until_start(demand))


def test_jobs_scheduled_for_the_same_time_stand_in_each_others_way() -> None:
    demand = replace(MEASURED, scheduled=[(30.0, 50.0)] * 200)

    assert seconds_until_start(demand, run_in_seconds=30.0) > 45


def test_beyond_what_was_counted_the_backlog_is_taken_to_go_on_as_densely() -> None:
    counted = waiting(*(float(n) for n in range(100)), in_flight=10)
    cut = replace(counted, cut=True)

    assert seconds_until_start(counted, slack_seconds=500.0) == pytest.approx(10.2)
    assert seconds_until_start(cut, slack_seconds=500.0) == pytest.approx(50, rel=0.1)
    alike = waiting(*[5.0] * 100, in_flight=10, cut=True)
    assert math.isinf(seconds_until_start(alike, slack_seconds=500.0))


@given(
    slacks=st.lists(st.floats(0, 1e4), max_size=50),
    slack=st.floats(-10, 1e5),
    run_in=st.floats(0, 1e4),
    in_flight=st.integers(0, 100),
    late=st.booleans(),
    age=st.floats(0, 10),
    ran=st.floats(0, 1e4),
)
def test_a_forecast_is_never_before_the_job_can_run(
    slacks: list[float],
    slack: float,
    run_in: float,
    in_flight: int,
    late: bool,
    age: float,
    ran: float,
) -> None:
    demand = waiting(
        *slacks,
        in_flight=in_flight,
        any_late=late,
        finished=[Finished(due_ago=ran + 5, started_ago=ran, finished_ago=0.0)],
    )

    at = seconds_until_start(demand, slack_seconds=slack, run_in_seconds=run_in, age_seconds=age)

    assert at >= run_in


def in_order(*parts: Sequence[Played]) -> list[Played]:
    return sorted((job for part in parts for job in part), key=lambda job: job.at)


SHAPES = {
    "steady": (10, 10, in_order(arrivals(8, 300, SHORT))),
    "burst": (10, 10, in_order(arrivals(3, 200, [30]), burst(800, 60, 60))),
    "tolerant burst": (10, 10, in_order(arrivals(5, 300, SHORT), burst(900, 60, 300))),
    "surge": (
        10,
        10,
        in_order(arrivals(5, 100, (5, 60, 300)), arrivals(13, 300, (5, 60, 300), start=100)),
    ),
    "overload": (10, 10, in_order(arrivals(5, 100, SHORT), arrivals(13, 300, SHORT, start=100))),
    "waves": (
        10,
        10,
        in_order(arrivals(4, 400, SHORT), *(burst(300, 50 + 100 * n, 25) for n in range(3))),
    ),
    "fewer workers": (
        40,
        10,
        in_order(arrivals(5, 100, SHORT), arrivals(13, 300, SHORT, seed=2, start=100)),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_nine_of_ten_feasible_answers_are_kept(shape: str) -> None:
    capacity, workers, jobs = SHAPES[shape]

    said = [job for job in Stage(capacity, workers).play(jobs) if job.feasible]

    assert len(said) >= len(jobs) / 4
    assert sum(job.kept for job in said) >= 0.9 * len(said)
