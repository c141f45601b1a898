"""Slots: taken while a handler runs, bounded by what is not yet written."""

from __future__ import annotations

from async_jobs.worker.slots import Slots


def test_a_slot_is_free_while_the_outcome_is_being_written() -> None:
    slots = Slots(2)
    slots.claim()

    slots.hand_over()

    assert slots.free == 1


def test_no_more_outcomes_wait_to_be_written_than_there_are_slots() -> None:
    slots = Slots(2)
    for _ in range(2):
        slots.claim()
        slots.hand_over()
        slots.hand_over()

    assert slots.free == 0
    slots.written()
    assert slots.free == 1


def test_slots_that_were_not_used_come_back() -> None:
    slots = Slots(3)

    slots.give_back(slots.claim() - 1)

    assert slots.free == 2


async def test_whoever_waits_is_told_of_a_free_slot() -> None:
    slots = Slots(1)
    slots.claim()
    slots.hand_over()
    slots.claim()
    slots.hand_over()
    assert slots.free == 0

    slots.written()

    await slots.wait_free()
    assert slots.free == 1
