"""Claims: a busy worker leases and starts waiting jobs in one step, by a scheduler's leave.

    worker      asks (`ask_for_grant`) when jobs fill all its slots, or come one after the other
    scheduler   grants (`grant_claims`) for a second while workers ask and nothing but deadlines and
                the capacity decides: none late, no tenant bounded, no breaker open. Until its next
                look it leaves the hints of producers to them
    worker      claims (`jobs_claim`) in a turn of its own, as schedulers take it, so that the count
                and with it the capacity stay exact, with how many workers ever. Of its use cases it
                takes the one whose most urgent job comes first, if that one was granted. The server
                makes the whole turn: a worker that stops meanwhile delays nobody

One version of the row less than lease and start, no scheduler on the way, and a slot that frees is
filled by who freed it. The capacity is the scheduler's, whatever a worker's environment says. Who
grants looks again twice a second, and goes on leasing what nobody claims, few jobs while somebody
does: workers that never ask, or no longer do, miss nothing. A grant that is not renewed has expired
a second later; one whose reasons are gone is taken back; a late job ends claims at once, since each
turn looks for one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from psycopg.errors import ActiveSqlTransaction
from psycopg.rows import tuple_row

from async_jobs.core.claims import Claimed
from async_jobs.core.clock import Clock
from async_jobs.store.door import Door, Params
from async_jobs.store.queries import query
from async_jobs.store.started import started_jobs
from async_jobs.store.turn import ASKED_SECONDS

_ASK_FOR_GRANT = query("ask_for_grant", "claims")
_CLAIM_DUE = query("claim_due", "claims")
_JOB = 19
"""So many columns of a claim are those of a job; then comes what the first row says."""


class Claims:
    """The worker's side of `jobs_grants`."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock
        self._sees_stale = False
        """Whether the server's default isolation is stricter than READ COMMITTED."""

    async def ask(self, use_cases: Collection[str]) -> None:
        """Ask schedulers for leave to claim jobs of these use cases; holds for ASKED_SECONDS."""
        params = {"use_cases": sorted(use_cases), "old_seconds": ASKED_SECONDS / 3}
        await self._door.rows(_ASK_FOR_GRANT, params, tuple_row)

    async def claim(
        self,
        use_cases: Sequence[str],
        queues: Sequence[str],
        *,
        slots: int,
        worker: str,
        lease_seconds: float,
    ) -> Claimed | None:
        """Claim up to *slots* jobs of the use case that comes next; None without any leave."""
        head, *rows = await self._rows(
            {
                "use_cases": list(use_cases),
                "queues": list(queues),
                "slots": slots,
                "worker": worker,
                "lease_seconds": lease_seconds,
                "now": self._clock.now(),
            }
        )
        any_granted, some_wait, held, capacity = head[_JOB:]
        if held is None:
            return Claimed([], some_wait=some_wait) if any_granted else None
        room = min(slots, capacity - held)
        if room <= 0:
            return Claimed([])
        jobs = started_jobs([row[:_JOB] for row in rows])
        use_case = jobs[0].use_case if jobs else ""
        some_wait = len(jobs) == room or len(use_cases) > 1
        return Claimed(jobs, use_case, held + len(jobs), capacity, some_wait)

    async def _rows(self, params: Params) -> list[tuple[Any, ...]]:
        if not self._sees_stale:
            try:
                return await self._door.rows(_CLAIM_DUE, params, tuple_row)
            except ActiveSqlTransaction:
                self._sees_stale = True
        async with self._door.transaction() as conn:
            return await self._door.rows(_CLAIM_DUE, params, tuple_row, on=conn)
