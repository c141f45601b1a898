"""Tells a meter provider of the whole system, every half minute; without one it does nothing.

The same figures as `GET /jobs/metrics`, by the same bounded statements. Every scheduler tells them,
so that none has to be the one: whoever looks takes the largest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from async_jobs.core.exposition import Figures
from async_jobs.runtime.loop import Loop
from async_jobs.telemetry.bus import Bus, Measure

EVERY_SECONDS = 30.0


class FiguresDesk(Protocol):
    """Knows the figures of the whole system."""

    async def figures(self) -> Figures: ...


class Gauges:
    """Sets the gauges of one process."""

    def __init__(self, desk: FiguresDesk, measure: Measure) -> None:
        self._desk = desk
        self._measure = measure

    async def tick(self) -> float:
        """Ask once, and tell."""
        found = await self._desk.figures()
        for each in found.use_cases:
            labels = {"use_case": each.use_case}
            self._measure("async_jobs.oldest_due", each.oldest_due_seconds, **labels)
            self._measure("async_jobs.error_budget.left", each.budget_left, **labels)
            self._measure("async_jobs.required_slots", each.required_slots, **labels)
        self._measure("async_jobs.workers.needed", found.workers_needed)
        self._measure("async_jobs.rows.dead", found.dead_rows)
        return EVERY_SECONDS


@asynccontextmanager
async def gauging(desk: FiguresDesk, *, bus: Bus) -> AsyncIterator[None]:
    """Gauges are set while inside, if *bus* is measured."""
    if bus.measure is None:
        yield
        return
    async with Loop("gauges", Gauges(desk, bus.measure).tick, bus=bus).running():
        yield
