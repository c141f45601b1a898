"""The loop that all services share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from moving_parts import Events, until

from async_jobs.runtime import loop as runtime
from async_jobs.runtime.loop import Loop
from async_jobs.telemetry.events import LoopFailed, LoopRecovered


class Ticks:
    """A tick that counts, and does what `then` says."""

    def __init__(self, then: Callable[[int], float]) -> None:
        self.count = 0
        self._then = then

    async def __call__(self) -> float:
        self.count += 1
        return self._then(self.count)


def failing(count: int) -> float:
    raise OSError("away")


def asleep(count: int) -> float:
    return 3_600.0


@pytest.fixture
def events() -> Events:
    return Events()


async def ended(loop: Loop, task: asyncio.Future[None]) -> None:
    loop.stop()
    await asyncio.wait_for(task, 20)


async def test_a_loop_ticks_until_it_is_stopped(events: Events) -> None:
    ticks = Ticks(lambda count: 0.0)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())

    await until(lambda: ticks.count >= 5)

    await ended(loop, task)


async def test_a_loop_without_pause_lets_others_run(events: Events) -> None:
    loop = Loop("test", Ticks(lambda count: 0.0), bus=events.bus)
    task = asyncio.ensure_future(loop.run())

    await asyncio.wait_for(asyncio.sleep(0), 20)

    await ended(loop, task)


async def test_a_loop_sleeps_as_long_as_its_tick_says(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def sleep(self: Loop, seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 3:
            self.stop()

    monkeypatch.setattr(Loop, "_sleep", sleep)
    await Loop("test", Ticks(lambda count: count * 1.5), bus=events.bus).run()

    assert asked == [1.5, 3.0, 4.5]


async def test_a_short_sleep_ends_by_itself(events: Events) -> None:
    ticks = Ticks(lambda count: 0.001)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())

    await until(lambda: ticks.count >= 3)

    await ended(loop, task)


async def test_waking_ends_the_sleep(events: Events) -> None:
    ticks = Ticks(asleep)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())
    await until(lambda: ticks.count == 1)

    loop.wake()

    await until(lambda: ticks.count == 2)
    await ended(loop, task)


async def test_waking_during_a_tick_makes_the_loop_tick_once_more(events: Events) -> None:
    def wake_at_first(count: int) -> float:
        if count == 1:
            loop.wake()
        return 3_600.0

    ticks = Ticks(wake_at_first)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())

    await until(lambda: ticks.count == 2)

    await ended(loop, task)


async def test_a_loop_stopped_before_it_runs_does_not_tick(events: Events) -> None:
    ticks = Ticks(asleep)
    loop = Loop("test", ticks, bus=events.bus)
    loop.stop()

    await loop.run()

    assert ticks.count == 0


async def test_stopping_ends_a_sleep_at_once(events: Events) -> None:
    ticks = Ticks(asleep)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())
    await until(lambda: ticks.count == 1)

    await ended(loop, task)

    assert ticks.count == 1


async def test_stopping_ends_the_wait_of_a_failing_loop_at_once(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "FIRST_RETRY_SECONDS", 3_600.0)
    monkeypatch.setattr(runtime, "LAST_RETRY_SECONDS", 3_600.0)
    ticks = Ticks(failing)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())
    await until(lambda: events.of(LoopFailed))

    await ended(loop, task)


async def test_a_loop_stopped_in_a_tick_that_then_fails_ends_at_once(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "FIRST_RETRY_SECONDS", 3_600.0)
    monkeypatch.setattr(runtime, "LAST_RETRY_SECONDS", 3_600.0)

    def stop_and_fail(count: int) -> float:
        loop.stop()
        return failing(count)

    loop = Loop("test", Ticks(stop_and_fail), bus=events.bus)

    await asyncio.wait_for(loop.run(), 20)


async def test_a_tick_under_way_is_never_cut_off_by_a_stop(events: Events) -> None:
    entered, go, done = asyncio.Event(), asyncio.Event(), []

    async def tick() -> float:
        entered.set()
        await go.wait()
        done.append(True)
        return 0.0

    loop = Loop("test", tick, bus=events.bus)
    task = asyncio.ensure_future(loop.run())
    await entered.wait()
    loop.stop()
    go.set()
    await asyncio.wait_for(task, 20)

    assert done == [True]


async def test_failures_are_told_one_by_one_with_growing_jittered_waits(events: Events) -> None:
    loop = Loop("test", Ticks(failing), bus=events.bus)
    pauses = [await loop._guarded_tick() for _ in range(9)]

    most = [0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    assert all(
        0.75 * bound <= pause <= 1.25 * bound for pause, bound in zip(pauses, most, strict=True)
    )
    assert [event.failures for event in events.of(LoopFailed)] == list(range(1, 10))
    assert [event.retry_in_seconds for event in events.of(LoopFailed)] == pauses
    assert len(set(pauses)) == 9


async def test_failures_beyond_count_still_have_a_finite_wait(events: Events) -> None:
    loop = Loop("test", Ticks(failing), bus=events.bus)
    loop._failures = 10**6

    assert await loop._guarded_tick() <= 5.0 * 1.25


async def test_a_loop_that_works_again_is_told_and_starts_from_the_first_wait(
    events: Events,
) -> None:
    works = [False, False, True, False]

    def then(count: int) -> float:
        return 0.0 if works[count - 1] else failing(count)

    loop = Loop("test", Ticks(then), bus=events.bus)
    pauses = [await loop._guarded_tick() for _ in works]

    assert [event.failures for event in events.of(LoopRecovered)] == [2]
    assert pauses[3] <= 0.5 * 1.25


async def test_hints_do_not_hurry_a_failing_loop(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "FIRST_RETRY_SECONDS", 3_600.0)
    monkeypatch.setattr(runtime, "LAST_RETRY_SECONDS", 3_600.0)
    ticks = Ticks(failing)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())
    await until(lambda: events.of(LoopFailed))

    for _ in range(20):
        loop.wake()
        await asyncio.sleep(0)

    assert ticks.count == 1
    await ended(loop, task)


async def test_progress_is_what_a_tick_that_worked_makes(events: Events) -> None:
    loop = Loop("test", Ticks(lambda count: failing(count) if count == 1 else 0.0), bus=events.bus)
    began_at = loop.progress_at
    await loop._guarded_tick()
    after_failure = loop.progress_at

    await loop._guarded_tick()

    assert after_failure == began_at
    assert loop.progress_at > began_at


async def test_a_cancelled_loop_ends(events: Events) -> None:
    ticks = Ticks(asleep)
    loop = Loop("test", ticks, bus=events.bus)
    task = asyncio.ensure_future(loop.run())
    await until(lambda: ticks.count == 1)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
