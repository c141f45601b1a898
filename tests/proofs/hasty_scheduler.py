"""A scheduler that is wrong on purpose: it counts in one turn and leases in the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime

from async_jobs.cli.scheduler import main
from async_jobs.store import jobs
from async_jobs.store.door import Door
from async_jobs.store.turn import InFlight, Turn, take_turn

TIME_FOR_OTHERS_SECONDS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class HastyTurn(Turn):
    """A turn with the count of an earlier moment."""

    counted: InFlight

    async def count_in_flight(self) -> InFlight:
        return self.counted


@asynccontextmanager
async def hasty_turn(
    door: Door, use_case: str, *, now: datetime | None
) -> AsyncIterator[Turn | None]:
    async with take_turn(door, use_case, now=now) as early:
        counted = await early.count_in_flight() if early else None
    await asyncio.sleep(TIME_FOR_OTHERS_SECONDS)
    async with take_turn(door, use_case, now=now) as turn:
        if turn is None or counted is None:
            yield None
            return
        known = {each.name: getattr(turn, each.name) for each in fields(turn)}
        yield HastyTurn(**known, counted=counted)


if __name__ == "__main__":
    jobs.take_turn = hasty_turn
    main()
