"""How many slots the waiting jobs need."""

from __future__ import annotations

import heapq
import math

from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.demand import EDGES_SECONDS, Need, Step, required_slots


def need(*steps: Step, mean_run_seconds: float = 1.0, in_flight: int = 0) -> Need:
    return required_slots(steps, mean_run_seconds=mean_run_seconds, in_flight=in_flight)


def test_with_nothing_waiting_what_is_in_flight_is_needed() -> None:
    assert need(Step(10.0, 0), in_flight=7) == Need(7)


def test_tolerant_work_needs_few_slots_however_many_hold_it_now() -> None:
    assert need(Step(3_600.0, 3_500), in_flight=40) == Need(1)


def test_jobs_due_at_once_need_a_slot_each() -> None:
    assert need(Step(1.0, 10), mean_run_seconds=1_000.0) == Need(10)


def test_running_jobs_stand_in_the_way_of_urgent_ones() -> None:
    assert need(Step(1.0, 1), mean_run_seconds=100.0, in_flight=10) == Need(11)


def test_the_tightest_deadline_decides() -> None:
    urgent, tolerant = Step(10.0, 110), Step(600.0, 601)

    assert need(urgent) == Need(10)
    assert need(urgent, tolerant) == Need(10)
    assert need(urgent, Step(600.0, 12_000)) == Need(21)


def test_late_jobs_are_to_be_caught_up_within_a_minute() -> None:
    assert need(Step(0.0, 610)) == Need(10)


def test_a_count_that_was_cut_off_gives_a_least_number() -> None:
    assert need(Step(60.0, 610, cut=True)) == Need(10, at_least=True)


@given(
    st.lists(st.sampled_from(EDGES_SECONDS[1:12]), min_size=1, max_size=200),
    st.floats(0.1, 50.0),
)
def test_one_slot_less_breaks_a_promise(deadlines: list[float], run_seconds: float) -> None:
    """Checked by playing it through: earliest deadline first on so many equal slots.

    Rounding up to whole jobs may need slots above the bound, so only the bound is checked.
    """
    steps = [Step(edge, deadlines.count(edge)) for edge in EDGES_SECONDS]
    slots = required_slots(steps, mean_run_seconds=run_seconds, in_flight=0).slots

    assert slots == 1 or not keeps_all(sorted(deadlines), run_seconds, slots - 1)


def keeps_all(deadlines: list[float], run_seconds: float, slots: int) -> bool:
    free_at = [0.0] * slots
    for deadline in deadlines:
        start = heapq.heappop(free_at)
        if start > deadline + 1e-6 * math.ceil(run_seconds):
            return False
        heapq.heappush(free_at, start + run_seconds)
    return True
