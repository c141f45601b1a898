"""Claims: a busy worker leases and starts waiting jobs in one step, by a scheduler's leave.

    worker      asks (`ask_for_grant`) when jobs fill all its slots, or come one after the other
    scheduler   grants (`grant_claims`) for a second while workers ask and nothing but deadlines and
                the capacity decides: none late, no tenant bounded, no breaker open. Until its next
                look it leaves the hints of producers to them
    worker      claims (`claim_due`) in a turn of its own, as schedulers take it, so that the count
                and with it the capacity stay exact, with how many workers ever. Of its use cases it
                takes the one whose most urgent job comes first, if that one was granted

One version of the row less than lease and start, no scheduler on the way, and a slot that frees is
filled by who freed it. The capacity is the scheduler's, whatever a worker's environment says. Who
grants looks again twice a second, and goes on leasing what nobody claims, few jobs while somebody
does: workers that never ask, or no longer do, miss nothing. A grant that is not renewed has expired
a second later; one whose reasons are gone is taken back; a late job ends claims at once, since each
turn looks for one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg.rows import tuple_row

from async_jobs.core.claims import Claimed
from async_jobs.core.clock import Clock
from async_jobs.store.door import Door
from async_jobs.store.queries import query
from async_jobs.store.turn import ASKED_SECONDS, PAUSE, Turn

_ASK_FOR_GRANT = query("ask_for_grant", "claims")
_TAKE_TURN = query("take_granted_turn", "claims")


class Claims:
    """The worker's side of `jobs_grants`."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock

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
        async with self._door.transaction() as conn:
            params = {"use_cases": list(use_cases), "now": self._clock.now(), **PAUSE}
            [(any_granted, some_wait, use_case, capacity, has_turn)] = await self._door.rows(
                _TAKE_TURN, params, tuple_row, on=conn
            )
            if not has_turn:
                return Claimed([], some_wait=some_wait) if any_granted else None
            turn = Turn(use_case=use_case, door=self._door, conn=conn, now=self._clock.now())
            held = (await turn.count_in_flight()).total
            room = min(slots, capacity - held)
            if room <= 0:
                return Claimed([])
            jobs = await turn.claim_due(
                room, queues=queues, worker=worker, lease_seconds=lease_seconds
            )
            some_wait = len(jobs) == room or len(use_cases) > 1
            return Claimed(jobs, use_case, held + len(jobs), capacity, some_wait)
