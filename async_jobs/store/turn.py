"""A scheduler's turn in one use case: count what is in flight, lease what fits.

Exactness comes from the order of statements. The advisory lock is taken in a
statement of its own, the count comes in the next one, so its snapshot is newer
than the last holder's commit (a lock inside the counting statement was measured
to overshoot: 80 of 50). The lock ends with the transaction, so a scheduler that
dies loses its turn at once and there is no leader to elect.

A scheduler that is stopped in its turn (SIGSTOP, a frozen machine, a network that went
silent) neither goes on nor closes its connection. So the server bounds the pauses between
the turn's statements (`idle_in_transaction_session_timeout`, set for this transaction
only): after 2.5 s it rolls the turn back and ends the session, and others go on, a second
later at most. Who wakes up afterwards finds its connection closed, as StoreUnavailable, and
has leased nothing. A time-out of the client could not do this: a stopped client measures
nothing. What runs inside a statement is bounded by the door's time-out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, tuple_row

from async_jobs.core.fairness import Flow
from async_jobs.core.window import OLD_SECONDS
from async_jobs.models import JobStatus, Leased
from async_jobs.store.door import Connection, Door
from async_jobs.store.ladder import ControlTables
from async_jobs.store.late import EndedLate, end_late
from async_jobs.store.queries import query

_LOCK_USE_CASE = query("lock_use_case", "turn")
_COUNT_IN_FLIGHT = query("count_in_flight", "turn")
_LEASE_DUE = query("lease_due", "turn")
_FIND_DUE = query("find_due", "turn")
_FIND_FLOWS = query("find_flows", "turn")
_FIND_CANDIDATES = query("find_candidates", "turn")
_LEASE_CHOSEN = query("lease_chosen", "turn")
_SAMPLE_FINISHED = query("sample_finished", "turn")
_HINT_LEASED = query("hint_leased", "turn")
_GRANT_CLAIMS = query("grant_claims", "claims")

LONGEST_PAUSE_SECONDS = 2.5
"""Far more than a pass needs between two statements; with the others' pause of at most 1 s
(`scheduler/dispatch.py`) a stopped scheduler delays its use case by less than 5 s."""

ASKED_SECONDS = 3.0
"""How long a worker's asking for leave to claim counts; it asks again after a third of it."""

NEW_CLAIM_SECONDS = 1.0
"""For so long a claim that is in flight says that workers claim."""

BEFORE_ALL = Flow("", "", False, -(2**15))
"""Sorts before every flow there can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """Leases of a use case: by tenant, and those that no worker has started yet.

    `claimed`: workers have claimed some of them a moment ago.
    """

    held: dict[str, int]
    unstarted: int = 0
    old: int = 0
    claimed: bool = False

    @property
    def total(self) -> int:
        return sum(self.held.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFlow:
    """A flow with waiting jobs. Slack is in seconds, negative when late.

    `slack_seconds` is that of its most urgent job, `timely_slack_seconds` that of its first
    job that is not late, None if all are.
    """

    flow: Flow
    slack_seconds: float
    timely_slack_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job that may be leased."""

    job_id: UUID
    flow: Flow
    slack_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long a finished job ran."""

    tenant_id: str
    type: str
    ran_seconds: float
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The right to lease in one use case until the transaction ends.

    `pressure`: some waiting job is late. `controlled`: a control table holds something.
    `asked`: a worker asked for leave to claim jobs itself. `grant_capacity`: what a scheduler gave
    such leave for, None for none.
    """

    use_case: str
    door: Door
    conn: Connection
    now: datetime | None
    pressure: bool = False
    controlled: bool = False
    asked: bool = False
    grant_capacity: int | None = None

    @property
    def controls(self) -> ControlTables:
        """The use case's rows in the control tables."""
        return ControlTables(use_case=self.use_case, door=self.door, conn=self.conn, now=self.now)

    async def count_in_flight(self) -> InFlight:
        """Leases held. Costs one index range as long as the capacity."""
        return await count_in_flight(self.door, self.use_case, now=self.now, on=self.conn)

    async def lease_due(self, slots: int, *, lease_seconds: float) -> list[Leased]:
        """Lease up to *slots* waiting jobs, earliest deadline first; most urgent first."""
        return await self._lease(_LEASE_DUE, lease_seconds, slots=slots)

    async def lease_chosen(
        self, ids: Sequence[UUID], *, lease_seconds: float, probes: Collection[UUID] = ()
    ) -> list[Leased]:
        """Lease these jobs, as far as they still wait; most urgent first."""
        return await self._lease(_LEASE_CHOSEN, lease_seconds, ids=list(ids), probes=list(probes))

    async def grant(self, capacity: int, *, seconds: float) -> None:
        """Leave for workers to claim waiting jobs up to *capacity*, which ends by itself."""
        params = self._params(capacity=capacity, seconds=seconds)
        await self.door.rows(_GRANT_CLAIMS, params, tuple_row, on=self.conn)

    async def end_late(self, status: JobStatus, *, most: int) -> list[EndedLate]:
        """End up to *most* waiting jobs whose deadline has passed, as cancelled or dead."""
        return await end_late(self.door, self.conn, self.use_case, status, most=most, now=self.now)

    async def find_due(self, most: int, *, timely: bool) -> list[WaitingJob]:
        """The most urgent waiting jobs of all flows; with *timely*, of those not late."""
        found = await self._rows(_FIND_DUE, most=most, timely=timely)
        return [
            WaitingJob(job_id=job_id, flow=Flow(*flow), slack_seconds=slack)
            for job_id, *flow, slack in found
        ]

    async def find_flows(self, most: int, *, after: Flow = BEFORE_ALL) -> list[WaitingFlow]:
        """Up to *most* flows with waiting jobs, from *after* on, in their order in the index."""
        found = await self._rows(
            _FIND_FLOWS,
            most=most,
            after_tenant=after.tenant_id,
            after_type=after.type,
            after_retry=after.is_retry,
            after_priority=after.priority,
        )
        return [
            WaitingFlow(flow=Flow(*flow), slack_seconds=slack, timely_slack_seconds=timely)
            for *flow, slack, timely in found
        ]

    async def find_candidates(
        self, lanes: Sequence[tuple[Flow, bool]], most: int
    ) -> list[list[WaitingJob]]:
        """Up to *most* jobs of each lane, a flow's late (True) or timely side; earliest first."""
        found = await self._rows(
            _FIND_CANDIDATES,
            most=most,
            tenant_ids=[flow.tenant_id for flow, _ in lanes],
            types=[flow.type for flow, _ in lanes],
            retries=[flow.is_retry for flow, _ in lanes],
            priorities=[flow.priority for flow, _ in lanes],
            lates=[late for _, late in lanes],
        )
        candidates: list[list[WaitingJob]] = [[] for _ in lanes]
        for number, job_id, slack in found:
            flow = lanes[number - 1][0]
            job = WaitingJob(job_id=job_id, flow=flow, slack_seconds=slack)
            candidates[number - 1].append(job)
        return candidates

    async def sample_finished(self, most: int, *, since: datetime | None) -> list[Run]:
        """How long the newest jobs ran that finished after *since*; newest first."""
        return await self.door.rows(
            _SAMPLE_FINISHED,
            self._params(most=most, since=since),
            class_row(Run),
            on=self.conn,
            prepare=False,
        )

    async def hint(self, queues: Sequence[str]) -> None:
        """Wake workers that take jobs of these queues from the table, once this turn commits."""
        await self.door.rows(_HINT_LEASED, {"topics": list(queues)}, tuple_row, on=self.conn)

    async def _rows(self, sql: bytes, **params: object) -> list[tuple[Any, ...]]:
        return await self.door.rows(
            sql, self._params(**params), tuple_row, on=self.conn, prepare=False
        )

    async def _lease(self, sql: bytes, lease_seconds: float, **params: object) -> list[Leased]:
        leased = await self._rows(sql, lease_seconds=lease_seconds, **params)
        # RETURNING comes in the order of the plan, not of the ORDER BY.
        return sorted(map(Leased._make, leased), key=lambda job: job.urgency)

    def _params(self, **params: object) -> dict[str, object]:
        return {"use_case": self.use_case, "now": self.now, **params}


async def count_in_flight(
    door: Door, use_case: str, *, now: datetime | None, on: Connection | None = None
) -> InFlight:
    """Leases held in *use_case*; outside of a turn others may change that at once."""
    params = {
        "use_case": use_case,
        "now": now,
        "old_seconds": OLD_SECONDS,
        "new_seconds": NEW_CLAIM_SECONDS,
    }
    counted = await door.rows(_COUNT_IN_FLIGHT, params, tuple_row, on=on)
    return InFlight(
        held={tenant_id: held for tenant_id, held, *_ in counted},
        unstarted=sum(unstarted for _, _, unstarted, _, _ in counted),
        old=sum(old for _, _, _, old, _ in counted),
        claimed=any(claimed for *_, claimed in counted),
    )


@asynccontextmanager
async def take_turn(
    door: Door, use_case: str, *, now: datetime | None
) -> AsyncIterator[Turn | None]:
    """The turn in *use_case*, or None while another scheduler has it."""
    async with door.transaction() as conn:
        params = {
            "use_case": use_case,
            "now": now,
            "asked_seconds": ASKED_SECONDS,
            "longest_pause_ms": str(round(LONGEST_PAUSE_SECONDS * 1_000)),
        }
        [(granted, pressure, controlled, asked, grant_capacity)] = await door.rows(
            _LOCK_USE_CASE, params, tuple_row, on=conn
        )
        turn = Turn(
            use_case=use_case,
            pressure=pressure,
            controlled=controlled,
            asked=asked,
            grant_capacity=grant_capacity,
            door=door,
            conn=conn,
            now=now,
        )
        yield turn if granted else None
