"""Reads what waits in a use case and how fast it is worked off; bounded, and remembered briefly.

A producer that enqueues a thousand jobs a second must not ask a thousand times: each
answer is used again for a quarter of a second, the pace for two. Answers decide about
refusals only: an old one lets a few jobs too many in, or refuses a few for a moment longer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row, scalar_row, tuple_row

from async_jobs.core.clock import Clock
from async_jobs.store.door import Connection, Door
from async_jobs.store.queries import query

_GET_PACE = query("get_pace", "demand")
_COUNT_DUE_BEFORE = query("count_due_before", "demand")
_FIND_TENANTS = query("find_tenants", "demand")
_COUNT_DUE_OF_TENANT = query("count_due_of_tenant", "demand")

REMEMBERED_SECONDS = 0.25
PACE_REMEMBERED_SECONDS = 2.0
MOST_REMEMBERED = 1_000
MOST_RUNS = 100
MOST_TENANTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long jobs ran on average and how many were measured; a capacity if it is lowered."""

    mean_seconds: float
    measured: int
    capacity: int | None


class DemandReader:
    """The store's answers about demand; on the caller's connection where there is one."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock
        self._remembered: dict[tuple[object, ...], tuple[float, object]] = {}

    async def get_pace(self, use_case: str, *, on: Connection | None) -> Pace:
        """The pace of the newest finished jobs."""
        key = ("pace", use_case)
        if isinstance(known := self._known(key, PACE_REMEMBERED_SECONDS), Pace):
            return known
        params = {"use_case": use_case, "most": MOST_RUNS}
        [pace] = await self._door.rows(_GET_PACE, params, class_row(Pace), on=on, prepare=False)
        self._remember(key, pace)
        return pace

    async def count_due(
        self, use_case: str, *, within_seconds: float, most: int, on: Connection | None
    ) -> int:
        """Waiting jobs with a deadline at most so far away, counted up to *most*."""
        params = {"use_case": use_case, "within_seconds": within_seconds, "most": most}
        return await self._count(_COUNT_DUE_BEFORE, params, on)

    async def count_due_of(
        self,
        use_case: str,
        tenant_id: str,
        *,
        within_seconds: float,
        most: int,
        on: Connection | None,
    ) -> int:
        """The same for one tenant."""
        params = {
            "use_case": use_case,
            "tenant_id": tenant_id,
            "within_seconds": within_seconds,
            "most": most,
        }
        return await self._count(_COUNT_DUE_OF_TENANT, params, on)

    async def find_waiting_tenants(self, use_case: str, *, on: Connection | None) -> Sequence[str]:
        """Tenants with waiting jobs, a thousand of them at most."""
        key = ("tenants", use_case)
        if isinstance(known := self._known(key), list):
            return known
        params = {"use_case": use_case, "most": MOST_TENANTS}
        found = await self._door.rows(_FIND_TENANTS, params, tuple_row, on=on, prepare=False)
        tenants = [tenant_id for tenant_id, _, waits in found if waits]
        self._remember(key, tenants)
        return tenants

    async def _count(self, sql: bytes, params: dict[str, object], on: Connection | None) -> int:
        key = ("count", *params.values())
        if isinstance(known := self._known(key), int):
            return known
        params["now"] = self._clock.now()
        [counted] = await self._door.rows(sql, params, scalar_row, on=on, prepare=False)
        self._remember(key, counted)
        return int(counted)

    def _known(self, key: tuple[object, ...], seconds: float = REMEMBERED_SECONDS) -> object:
        read_at, answer = self._remembered.get(key, (0.0, None))
        return answer if time.monotonic() - read_at < seconds else None

    def _remember(self, key: tuple[object, ...], answer: object) -> None:
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = (time.monotonic(), answer)
