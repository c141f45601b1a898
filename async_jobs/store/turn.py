"""A scheduler's turn in one use case: count what is in flight, lease what fits.

Exactness comes from the order of statements. The advisory lock is taken in a
statement of its own, the count comes in the next one, so its snapshot is newer
than the last holder's commit (a lock inside the counting statement was measured
to overshoot: 80 of 50). The lock ends with the transaction, so a scheduler that
dies loses its turn at once and there is no leader to elect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row, scalar_row, tuple_row

from async_jobs.core.fairness import Candidate
from async_jobs.models import Leased
from async_jobs.store.door import Connection, Door
from async_jobs.store.queries import query

_LOCK_USE_CASE = query("lock_use_case")
_COUNT_IN_FLIGHT = query("count_in_flight")
_LEASE_DUE = query("lease_due")
_FIND_CANDIDATES = query("find_candidates")
_LEASE_CHOSEN = query("lease_chosen")
_HINT_LEASED = query("hint_leased")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The right to lease in one use case until the transaction ends."""

    use_case: str
    door: Door
    conn: Connection
    now: datetime | None

    async def count_in_flight(self) -> dict[str, int]:
        """Leases held, by tenant. Costs one index range as long as the capacity."""
        counted = await self.door.rows(
            _COUNT_IN_FLIGHT, {"use_case": self.use_case}, tuple_row, on=self.conn
        )
        return dict(counted)

    async def lease_due(self, slots: int, *, lease_seconds: float) -> list[Leased]:
        """Lease up to *slots* waiting jobs, earliest deadline first; most urgent first."""
        return await self._lease(_LEASE_DUE, lease_seconds, slots=slots)

    async def lease_chosen(self, ids: Sequence[UUID], *, lease_seconds: float) -> list[Leased]:
        """Lease these jobs, as far as they still wait; most urgent first."""
        return await self._lease(_LEASE_CHOSEN, lease_seconds, ids=list(ids))

    async def find_candidates(
        self, *, per_tenant: int, full_tenants: Sequence[str]
    ) -> list[Candidate]:
        """The most urgent waiting jobs of every tenant but the full ones."""
        params = {
            "use_case": self.use_case,
            "per_tenant": per_tenant,
            "full_tenants": list(full_tenants),
        }
        return await self.door.rows(
            _FIND_CANDIDATES, params, class_row(Candidate), on=self.conn, prepare=False
        )

    async def hint(self, queues: Sequence[str]) -> None:
        """Wake workers that take jobs of these queues from the table, once this turn commits."""
        await self.door.rows(_HINT_LEASED, {"topics": list(queues)}, tuple_row, on=self.conn)

    async def _lease(self, sql: bytes, lease_seconds: float, **params: object) -> list[Leased]:
        leased = await self.door.rows(
            sql,
            {"use_case": self.use_case, "now": self.now, "lease_seconds": lease_seconds, **params},
            class_row(Leased),
            on=self.conn,
            prepare=False,
        )
        # RETURNING comes in the order of the plan, not of the ORDER BY.
        return sorted(leased, key=lambda job: job.urgency)


@asynccontextmanager
async def take_turn(
    door: Door, use_case: str, *, now: datetime | None
) -> AsyncIterator[Turn | None]:
    """The turn in *use_case*, or None while another scheduler has it."""
    async with door.transaction() as conn:
        granted = await door.rows(_LOCK_USE_CASE, {"use_case": use_case}, scalar_row, on=conn)
        yield Turn(use_case=use_case, door=door, conn=conn, now=now) if granted[0] else None
