"""Autoscaling by deadlines against autoscaling by depth, on a small burst."""

from __future__ import annotations

import pytest

from async_jobs.simulation.scaling import ScalingFigures, WorkerFleet, burst, compare


@pytest.mark.slow
def test_scaling_by_promises_is_in_time_with_fewer_worker_hours_than_by_depth() -> None:
    promises, *by_depth = compare(burst(scale=0.25, seconds=2_700.0))
    in_time = [each for each in by_depth if each.late <= promises.late]

    assert promises.late_share < 0.001
    assert in_time
    assert all(each.worker_hours > 1.5 * promises.worker_hours for each in in_time)
    assert all(each.late > promises.late for each in by_depth if each not in in_time)


def test_a_worker_is_paid_while_it_boots_and_works_after_it() -> None:
    fleet = WorkerFleet(lambda now, deadlines, running: 3)
    slots = []
    for _ in range(6):
        fleet.look(fleet.next_at, [], 0)
        slots.append(fleet.slots)

    assert slots == [10, 10, 10, 10, 30, 30]
    assert fleet.worker_seconds == 6 * 3 * 15.0


def test_a_worker_goes_when_it_was_one_too_many_for_long_enough() -> None:
    fleet = WorkerFleet(lambda now, deadlines, running: 3 if now < 60 else 1)
    slots = {}
    while fleet.next_at < 600:
        now = fleet.next_at
        fleet.look(now, [], 0)
        slots[now] = fleet.slots

    assert slots[330.0] == 30
    assert slots[345.0] == 10


def test_figures_tell_the_share_of_late_jobs() -> None:
    figures = ScalingFigures(
        rule="r", jobs=200, late=1, worst_seconds=3.0, worker_hours=1.0, most_workers=2
    )

    assert figures.late_share == 0.005
