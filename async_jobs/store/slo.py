"""The SLO record in PostgreSQL, and what the jobs themselves say about promises right now.

`add` adds a process's counts to the rows of this minute and this hour, in one statement. Everything
that reads is bounded: sums over rows whose number does not follow the number of jobs, index heads,
counts that are cut off, and one scan that hops from tenant to tenant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from psycopg.rows import class_row, tuple_row

from async_jobs.core.clock import Clock
from async_jobs.core.demand import EDGES_SECONDS, MOST_PER_STEP, Step
from async_jobs.core.slo import (
    DAY_SECONDS,
    EVERY_TENANT,
    HOUR_SECONDS,
    MINUTE_SECONDS,
    MINUTES_KEPT_SECONDS,
    PERIOD_SECONDS,
    WINDOWS,
    Histogram,
    Key,
    Measure,
    Promises,
    Sums,
    span_for,
)
from async_jobs.core.slo_report import Minute, Pulse, Reading, TenantNow
from async_jobs.store.door import Door
from async_jobs.store.queries import query

_ADD_SLO = query("add_slo", "slo")
_PRUNE_SLO = query("prune_slo", "slo")
_SUM_SLO = query("sum_slo", "slo")
_SUM_MINUTES = query("sum_minutes", "slo")
_SUM_HISTOGRAMS = query("sum_histograms", "slo")
_SUM_TENANTS = query("sum_tenants", "slo")
_FIND_DEMAND = query("find_demand", "slo")
_FIND_PULSE = query("find_pulse", "slo")
_COUNT_DEAD_ROWS = query("count_dead_rows", "slo")
_FIND_TENANTS = query("find_tenants", "demand")

_SPANS = [MINUTE_SECONDS, HOUR_SECONDS]
_KEPT = [float(MINUTES_KEPT_SECONDS), float(PERIOD_SECONDS + HOUR_SECONDS)]
_SUMMED = [Measure.START.value, Measure.RUN.value]


class SloTable:
    """The record and the present, on the store's door."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock

    async def add(self, counts: Mapping[Key, Histogram]) -> None:
        """Add *counts* to the rows of the present."""
        await self._rows(
            _ADD_SLO,
            spans_seconds=_SPANS,
            use_cases=[key.use_case for key in counts],
            tenant_ids=[key.tenant_id for key in counts],
            measures=[key.measure.value for key in counts],
            totals=[each.total for each in counts.values()],
            lates=[each.late for each in counts.values()],
            sums_seconds=[each.sum_seconds for each in counts.values()],
            buckets=["{" + ",".join(map(str, each.buckets)) + "}" for each in counts.values()],
        )

    async def prune(self, most: int) -> int:
        """Delete up to *most* old rows of each length; how many."""
        return len(
            await self._rows(
                _PRUNE_SLO, prepare=False, spans_seconds=_SPANS, keeps_seconds=_KEPT, most=most
            )
        )

    async def read(
        self, use_cases: Sequence[str], *, window: str, tenant_id: str, most_tenants: int
    ) -> Reading:
        """Everything a report is made of; tenants only if *most_tenants* is not 0."""
        listed = use_cases if most_tenants else ()
        return Reading(
            window=window,
            tenant_id=tenant_id,
            sums=await self.sum_windows(use_cases, tenant_id),
            histograms=await self.sum_histograms(use_cases, WINDOWS[window], tenant_id),
            demand=await self.find_demand(use_cases),
            pulses=await self.find_pulse(use_cases),
            tenants={each: await self.find_tenants(each, most=most_tenants) for each in listed},
            kept_by_tenant={
                each: await self.sum_tenants(each, most=most_tenants) for each in listed
            },
        )

    async def sum_windows(
        self, use_cases: Sequence[str], tenant_id: str = EVERY_TENANT
    ) -> dict[tuple[str, Measure, str], Sums]:
        """First starts and runs by use case, measure and name of a window; absent: none."""
        names = {seconds: name for name, seconds in WINDOWS.items()}
        found = await self._rows(
            _SUM_SLO,
            use_cases=list(use_cases),
            tenant_id=tenant_id,
            measures=_SUMMED,
            windows_seconds=list(names),
            spans_seconds=[span_for(seconds) for seconds in names],
        )
        return {
            (use_case, Measure(measure), names[window]): Sums(total, late, seconds)
            for use_case, measure, window, total, late, seconds in found
        }

    async def sum_histograms(
        self, use_cases: Sequence[str], window_seconds: int, tenant_id: str = EVERY_TENANT
    ) -> dict[tuple[str, Measure], Histogram]:
        """What was measured in the window before now; absent: nothing."""
        found = await self._rows(
            _SUM_HISTOGRAMS,
            use_cases=list(use_cases),
            tenant_id=tenant_id,
            span_seconds=span_for(window_seconds),
            window_seconds=window_seconds,
        )
        return {
            (use_case, Measure(measure)): Histogram(int(total), int(late), seconds, buckets)
            for use_case, measure, total, late, seconds, buckets in found
        }

    async def sum_minutes(self, use_cases: Sequence[str], minutes: int) -> list[Minute]:
        """The last *minutes*, oldest first; those without a first start are left out."""
        found = await self._rows(_SUM_MINUTES, use_cases=list(use_cases), minutes=minutes)
        return [
            Minute(ago, int(started or 0), int(late or 0), float(seconds or 0))
            for ago, started, late, seconds in found
        ]

    async def sum_tenants(self, use_case: str, *, most: int) -> dict[str, Promises]:
        """First starts of the last day by tenant, most broken promises first."""
        found = await self._rows(
            _SUM_TENANTS,
            prepare=False,
            use_case=use_case,
            span_seconds=HOUR_SECONDS,
            window_seconds=DAY_SECONDS,
            most=most,
        )
        return {tenant_id: Promises(int(total), int(late)) for tenant_id, total, late in found}

    async def find_demand(
        self,
        use_cases: Sequence[str],
        *,
        edges_seconds: Sequence[float] = EDGES_SECONDS,
        most: int = MOST_PER_STEP,
    ) -> dict[str, list[Step]]:
        """How many jobs wait, by time to deadline; a step counts no further than *most*."""
        found = await self._rows(
            _FIND_DEMAND,
            prepare=False,
            use_cases=list(use_cases),
            afters_seconds=[None, *(after for after, _ in pairwise(edges_seconds))],
            untils_seconds=list(edges_seconds),
            most=most,
        )
        profiles: defaultdict[str, list[Step]] = defaultdict(list)
        for use_case, _, until_seconds, jobs in found:
            profiles[use_case].append(Step(until_seconds, jobs, cut=jobs >= most))
        return profiles

    async def find_pulse(self, use_cases: Sequence[str]) -> dict[str, Pulse]:
        """What each use case does right now."""
        params = {"use_cases": list(use_cases), "now": self._clock.now()}
        found = await self._door.rows(_FIND_PULSE, params, class_row(Pulse))
        return {pulse.use_case: pulse for pulse in found}

    async def count_dead_rows(self) -> int:
        """Dead row versions of the table, as the server estimates them."""
        [[dead_rows]] = await self._rows(_COUNT_DEAD_ROWS)
        return int(dead_rows)

    async def find_tenants(self, use_case: str, *, most: int) -> list[TenantNow]:
        """Who holds slots, and the first *most* of those who wait; most slots first."""
        params = {"use_case": use_case, "most": most}
        return await self._door.rows(_FIND_TENANTS, params, class_row(TenantNow), prepare=False)

    async def _rows(
        self, sql: bytes, *, prepare: bool | None = None, **params: object
    ) -> list[tuple[Any, ...]]:
        params["now"] = self._clock.now()
        return await self._door.rows(sql, params, tuple_row, prepare=prepare)
