"""A look by one statement comes before a turn where a turn would most likely do nothing."""

from __future__ import annotations

import pytest
from store.factories import SUCCEEDED, JobFactory, SettableClock, ticket

from async_jobs.scheduler.dispatch import GATHER_SECONDS, SHORTEST_PAUSE_SECONDS
from async_jobs.store.jobs import JobStore

from .conftest import FakeSender, MakeDispatcher


@pytest.fixture
def turns(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each turn that is taken."""
    taken: list[str] = []
    take_turn = store.take_turn
    monkeypatch.setattr(store, "take_turn", lambda name: taken.append(name) or take_turn(name))
    return taken


async def test_what_was_found_empty_is_looked_at_before_a_turn_is_taken(
    jobs: JobFactory,
    make_clocked_dispatcher: MakeDispatcher,
    turns: list[str],
    sender: FakeSender,
) -> None:
    await jobs.waiting()
    dispatcher = make_clocked_dispatcher()

    pauses = [await dispatcher.tick() for _ in range(5)]
    looked = len(turns)
    await jobs.waiting()
    await dispatcher.tick()

    assert pauses == [GATHER_SECONDS, *[SHORTEST_PAUSE_SECONDS] * 4]
    assert looked == 2
    assert len(sender.sent) == 2


async def test_what_was_just_full_is_looked_at_before_a_turn_is_taken(
    jobs: JobFactory,
    make_clocked_dispatcher: MakeDispatcher,
    turns: list[str],
    store: JobStore,
    sender: FakeSender,
    clock: SettableClock,
) -> None:
    for _ in range(3):
        await jobs.waiting()
    dispatcher = make_clocked_dispatcher(capacity=1)

    for _ in range(3):
        await dispatcher.tick()
    looked = len(turns)
    clock.advance(1.5)
    await dispatcher.tick()
    after_a_moment = len(turns)
    (started,) = await store.start([ticket(sender.sent[0])], worker="w", lease_seconds=60.0)
    await store.finish([(started, SUCCEEDED)])
    await dispatcher.tick()

    assert (looked, after_a_moment) == (1, 2)
    assert len(sender.sent) == 2
