"""Figures of loops and of the whole system: told where somebody measures, and free elsewhere."""

from __future__ import annotations

import asyncio

from moving_parts import until

from async_jobs.core.exposition import Figures
from async_jobs.core.slo_report import Pulse, Reading, Terms, report
from async_jobs.runtime.gauges import Gauges, gauging
from async_jobs.runtime.health import Health
from async_jobs.runtime.loop import Loop
from async_jobs.runtime.watch import Watch, watching
from async_jobs.telemetry.bus import Bus

READING = Reading(window="1h", pulses={"mail": Pulse(use_case="mail", due_seconds=7.0)})


class Told(list[tuple[str, float, dict[str, str]]]):
    """Everything that was measured."""

    def __call__(self, name: str, value: float, **labels: str) -> None:
        self.append((name, value, labels))

    def named(self, name: str) -> list[tuple[float, dict[str, str]]]:
        return [(value, labels) for one, value, labels in self if one == name]


class Desk:
    """Knows one use case."""

    asked = 0

    async def figures(self) -> Figures:
        self.asked += 1
        mail = report(
            "mail", READING, Terms(target=0.99, capacity=10, weight_of=lambda tenant: 1.0)
        )
        return Figures(use_cases=[mail], processes=[], workers_needed=3, dead_rows=12)


async def test_gauges_of_the_whole_system_are_told() -> None:
    told = Told()

    await Gauges(Desk(), told).tick()

    assert told.named("async_jobs.oldest_due") == [(7.0, {"use_case": "mail"})]
    assert told.named("async_jobs.error_budget.left") == [(1.0, {"use_case": "mail"})]
    assert told.named("async_jobs.required_slots") == [(0, {"use_case": "mail"})]
    assert told.named("async_jobs.workers.needed") == [(3, {})]
    assert told.named("async_jobs.rows.dead") == [(12, {})]


async def test_the_database_is_asked_only_where_somebody_measures() -> None:
    asked, unasked, bus = Desk(), Desk(), Bus()
    async with gauging(unasked, bus=Bus()):
        bus.measure = Told()
        async with gauging(asked, bus=bus):
            await until(lambda: asked.asked)

    assert (asked.asked, unasked.asked) == (1, 0)


async def test_a_loop_tells_how_long_its_passes_take_and_the_longest_once() -> None:
    told, bus = Told(), Bus()
    bus.measure = told
    passes = 0

    async def tick() -> float:
        nonlocal passes
        passes += 1
        await asyncio.sleep(0.05 if passes == 1 else 0.0)
        return 0.0

    loop = Loop("pass", tick, bus=bus)
    running = asyncio.ensure_future(loop.run())
    await until(lambda: passes >= 3)
    loop.stop()
    await running

    assert told.named("async_jobs.tick")[0][0] >= 0.04
    assert told.named("async_jobs.tick")[0][1] == {"loop": "pass"}
    assert len(told) == passes
    assert loop.take_longest() >= 0.04
    assert loop.take_longest() == 0.0


async def test_the_lag_of_the_event_loop_is_told_by_whoever_watches_it() -> None:
    told, bus = Told(), Bus()
    bus.measure = told
    health = Health(interval_seconds=1.0, give_up_seconds=0.0)
    watch = Watch("worker", "w", health, bus=bus, leave=lambda code: None, port=None)

    with watching(watch):
        await until(lambda: told)

    [(lag, labels), *_] = told.named("async_jobs.loop.lag")
    assert labels == {"role": "worker"}
    assert 0.0 <= lag <= health.take_longest_lag()
    assert health.take_longest_lag() == 0.0
