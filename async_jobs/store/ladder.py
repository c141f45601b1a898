"""The control tables of overload: what workers tell, what a scheduler decides in its turn.

    jobs_rates        one row per use case and tenant with a rate that is ahead of its pace
    jobs_endings      counts of flows that fail, a minute long
    jobs_breakers     one row per open breaker
    jobs_capacities   one row per use case whose capacity is lowered

While all is well they are empty. Ages and waits travel as seconds, so that only
the database's clock counts. What follows from the rows is decided in `core/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import class_row, tuple_row

from async_jobs.core.backpressure import Lowered
from async_jobs.core.breaker import LEAST_ENDED, STEP_SECONDS, WINDOW_SECONDS, Breaker
from async_jobs.core.endings import Endings, FlowKey
from async_jobs.store.door import Connection, Door
from async_jobs.store.queries import query

_REPORT_ENDINGS = query("report_endings", "ladder")
_FIND_BREAKERS = query("find_breakers", "ladder")
_FIND_FAILING = query("find_failing", "ladder")
_OPEN_BREAKERS = query("open_breakers", "ladder")
_PROBE_BREAKERS = query("probe_breakers", "ladder")
_CLOSE_BREAKERS = query("close_breakers", "ladder")
_GET_CAPACITY = query("get_capacity", "ladder")
_SET_CAPACITY = query("set_capacity", "ladder")
_RESTORE_CAPACITY = query("restore_capacity", "ladder")
_FIND_RATES = query("find_rates", "ladder")
_SET_RATES = query("set_rates", "ladder")
_PRUNE_CONTROLS = query("prune_controls", "ladder")
_WINDOW = {"window_seconds": WINDOW_SECONDS, "step_seconds": STEP_SECONDS}

TenantType = tuple[str, str]


async def report_endings(
    door: Door, endings: Endings, use_cases: Iterable[str], *, now: datetime | None
) -> set[FlowKey]:
    """Add *endings* to the counts; the flows of *use_cases* whose endings somebody counts."""
    counts = endings.counts
    params: dict[str, object] = {
        **_WINDOW,
        "now": now,
        "told_use_cases": [flow.use_case for flow in counts],
        "tenant_ids": [flow.tenant_id for flow in counts],
        "types": [flow.type for flow in counts],
        "ended": [count.ended for count in counts.values()],
        "failed": [count.failed for count in counts.values()],
        "probes_succeeded": [count.probe_succeeded for count in counts.values()],
        "pressed_use_cases": sorted(endings.pressed),
        "use_cases": sorted(use_cases),
    }
    return {FlowKey(*row) for row in await door.rows(_REPORT_ENDINGS, params, tuple_row)}


@dataclass(frozen=True, slots=True)
class Rates:
    """How far ahead of an even pace tenants were at a time; who is not named was not."""

    now: datetime
    ahead_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTables:
    """The control rows of one use case, inside a scheduler's turn."""

    use_case: str
    door: Door
    conn: Connection
    now: datetime | None

    async def find_breakers(self) -> dict[TenantType, Breaker]:
        """The open breakers."""
        return {
            (tenant_id, type): Breaker(
                open_seconds=open_seconds, probed_seconds=probed, probe_succeeded=succeeded
            )
            for tenant_id, type, open_seconds, probed, succeeded in await self._rows(_FIND_BREAKERS)
        }

    async def find_failing(self) -> dict[TenantType, Breaker]:
        """The flows with enough endings to be judged, as breakers that are closed."""
        found = await self._rows(_FIND_FAILING, **_WINDOW, least_ended=LEAST_ENDED)
        return {
            (tenant_id, type): Breaker(ended=ended, failed=failed, watched_seconds=watched)
            for tenant_id, type, ended, failed, watched in found
        }

    async def open_breakers(self, flows: Sequence[TenantType]) -> None:
        await self._rows(_OPEN_BREAKERS, **_columns(flows))

    async def probe_breakers(self, flows: Sequence[TenantType]) -> None:
        """Note that a probe of each of these flows has been leased."""
        await self._rows(_PROBE_BREAKERS, **_columns(flows))

    async def close_breakers(self, flows: Sequence[TenantType]) -> None:
        await self._rows(_CLOSE_BREAKERS, **_columns(flows))

    async def get_capacity(self) -> Lowered | None:
        """The lowered capacity; None while it is the configured one."""
        params = {"use_case": self.use_case, "now": self.now}
        found = await self.door.rows(_GET_CAPACITY, params, class_row(Lowered), on=self.conn)
        return found[0] if found else None

    async def set_capacity(self, capacity: int, *, moved_seconds: float) -> None:
        """Write down a capacity that was reached *moved_seconds* ago."""
        await self._rows(_SET_CAPACITY, capacity=capacity, moved_seconds=moved_seconds)

    async def restore_capacity(self) -> None:
        await self._rows(_RESTORE_CAPACITY)

    async def find_rates(self) -> Rates:
        """How far ahead tenants are now. Exact, because only a turn writes it."""
        found = await self._rows(_FIND_RATES)
        return Rates(
            found[0][0],
            {tenant_id: ahead for _, tenant_id, ahead in found if tenant_id is not None},
        )

    async def set_rates(self, now: datetime, ahead_seconds: Mapping[str, float]) -> None:
        """Write down how far ahead tenants are, counted from *now*, the time they were read at."""
        next_ats = [now + timedelta(seconds=ahead) for ahead in ahead_seconds.values()]
        await self._rows(_SET_RATES, tenant_ids=list(ahead_seconds), next_ats=next_ats)

    async def prune(self) -> None:
        """Delete rows that say nothing any more."""
        await self._rows(_PRUNE_CONTROLS, **_WINDOW)

    async def _rows(self, sql: bytes, **params: object) -> list[tuple[Any, ...]]:
        return await self.door.rows(
            sql, {"use_case": self.use_case, "now": self.now, **params}, tuple_row, on=self.conn
        )


def _columns(flows: Sequence[TenantType]) -> dict[str, object]:
    in_order = sorted(flows)
    return {
        "tenant_ids": [tenant_id for tenant_id, _ in in_order],
        "types": [type for _, type in in_order],
    }
