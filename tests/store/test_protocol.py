"""Every statement does to a row what the protocol model says, in every state that there is.

The model (`model/lease.py`) gives all rows that can come about; each is written as
it is, each statement is run on it with every ticket that can be about, and the row
must be what the model expects: mostly the same as before.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest

from async_jobs.core.outcome import Outcome
from async_jobs.models import Ticket
from async_jobs.store.jobs import JobStore
from async_jobs.store.queries import query

from .factories import (
    BURIED,
    CANCELLED,
    MIDNIGHT,
    RELEASED,
    RETRIED,
    RETRIED_AT_ONCE,
    SNOOZED,
    SUCCEEDED,
    SettableClock,
    granted,
    new_job,
)
from .planted_bugs import ROW_BUGS, Bug, bug_id, planted
from .test_pairs import Held

sys.path.insert(0, str(Path(__file__).parents[2]))
from model.explore import reachable
from model.lease import FINISHED, LAPSED, LIVE, NONE, Bounds, Design, Job, steps

FAR = Bounds(leases=99, requeues=99)
LEASE_SECONDS = 30.0
OUTCOMES: dict[str, Outcome] = {
    "succeed": SUCCEEDED,
    "bury": BURIED,
    "end cancelled": CANCELLED,
    "retry": RETRIED,
    "retry at once": RETRIED_AT_ONCE,
    "snooze": SNOOZED,
    "release an attempt": RELEASED,
}


class Row(NamedTuple):
    """What the model knows of a row."""

    status: str
    due: bool
    lease: str
    lease_seq: int
    attempts: int
    max_attempts: int
    cancel_asked: bool


def row_of(job: Job) -> Row:
    return Row(*(getattr(job, name) for name in Row._fields))


class Table:
    """The real row, written as a state of the model and read back as one."""

    def __init__(self, store: JobStore, clock: SettableClock, db: psycopg.Connection[Any]) -> None:
        self.store, self.clock, self.db = store, clock, db
        self.job_id: UUID = new_job().id

    async def begin(self) -> None:
        job = new_job(max_attempts=2)
        self.job_id = job.id
        await self.store.enqueue([job])
        await granted(self.store, capacity=1)

    def write(self, row: Row) -> None:
        leased_at = None if row.lease == NONE else MIDNIGHT - timedelta(seconds=LEASE_SECONDS)
        live_seconds = 1 if row.lease == LIVE else 0
        self.db.execute(
            "UPDATE jobs SET status = %(status)s, due = %(due)s, lease_seq = %(lease_seq)s,"
            " attempts = %(attempts)s, max_attempts = %(max_attempts)s, leased_at = %(leased_at)s,"
            " lease_expires_at = %(expires_at)s, run_at = %(now)s, probe = false,"
            " deadline_at = %(now)s + delay_tolerance, cancel_requested_at = %(asked_at)s,"
            " finished_at = %(finished_at)s",
            row._asdict()
            | {
                "now": MIDNIGHT,
                "leased_at": leased_at,
                "expires_at": leased_at and MIDNIGHT + timedelta(seconds=live_seconds),
                "asked_at": MIDNIGHT if row.cancel_asked else None,
                "finished_at": MIDNIGHT if row.status in FINISHED else None,
            },
        )

    def read(self) -> Row:
        found = self.db.execute(
            "SELECT status, due, CASE WHEN leased_at IS NULL THEN 'none'"
            " WHEN lease_expires_at > %s THEN 'live' ELSE 'lapsed' END, lease_seq, attempts,"
            " max_attempts, cancel_requested_at IS NOT NULL FROM jobs",
            [self.clock.now()],
        ).fetchone()
        assert found is not None
        return Row(*found)

    def ticket(self, lease_seq: int) -> Ticket:
        return Ticket(self.job_id, lease_seq or None)

    async def finish(self, outcome: Outcome, lease_seq: int) -> None:
        held: Any = Held(self.job_id, lease_seq)
        await self.store.finish([(held, outcome)])


async def promote(table: Table, _: int) -> None:
    await table.store.promote_due(5)


async def lease_due(table: Table, _: int) -> None:
    async with table.store.take_turn("mail") as turn:
        assert turn is not None
        await turn.lease_due(1, lease_seconds=LEASE_SECONDS)


async def lease_chosen(table: Table, _: int) -> None:
    async with table.store.take_turn("mail") as turn:
        assert turn is not None
        await turn.lease_chosen([table.job_id], lease_seconds=LEASE_SECONDS)


async def claim(table: Table, _: int) -> None:
    claimed = await table.store.claims.claim(
        ["mail"], ["mail-queue"], slots=1, worker="w", lease_seconds=LEASE_SECONDS
    )
    assert claimed is not None


async def rescue(table: Table, _: int) -> None:
    await table.store.rescue(5)


async def start(table: Table, lease_seq: int) -> None:
    await table.store.start([table.ticket(lease_seq)], worker="w", lease_seconds=LEASE_SECONDS)


async def start_leased(table: Table, _: int) -> None:
    await table.store.start_leased(["mail-queue"], slots=1, worker="w", lease_seconds=LEASE_SECONDS)


async def release(table: Table, lease_seq: int) -> None:
    await table.store.release([table.ticket(lease_seq)], enqueue_failed=True)


async def renew(table: Table, lease_seq: int) -> None:
    await table.store.renew(
        [table.ticket(lease_seq)], lease_seconds=LEASE_SECONDS, most_seconds=900.0
    )


async def extend(table: Table, lease_seq: int) -> None:
    params = {"ids": [table.job_id], "lease_seqs": [lease_seq], "lease_seconds": LEASE_SECONDS}
    table.db.execute(query("extend_attempts"), {**params, "now": table.clock.now()})


async def cancel(table: Table, _: int) -> None:
    await table.store.cancel(table.job_id)


async def requeue(table: Table, _: int) -> None:
    await table.store.requeue(table.job_id, more_attempts=1)


def reported(outcome: Outcome) -> Callable[[Table, int], Awaitable[None]]:
    async def report(table: Table, lease_seq: int) -> None:
        await table.finish(outcome, lease_seq)

    return report


Statement = Callable[[Table, int], Awaitable[None]]
BARE: dict[str, list[Statement]] = {
    "promote": [promote],
    "lease": [lease_due, lease_chosen],
    "claim": [claim],
    "rescue": [rescue],
    "start": [start, start_leased],
    "cancel": [cancel],
    "requeue": [requeue],
}
"""The statements of each move that is made without a lease_seq."""
NUMBERED: dict[str, Statement] = {
    "start": start,
    "release a ticket": release,
    "renew a ticket": renew,
    "extend": extend,
    **{move: reported(outcome) for move, outcome in OUTCOMES.items()},
}
"""The statement of each move that is made under a lease_seq."""


def expected_of(job: Job) -> Iterator[tuple[tuple[str, int], Row]]:
    """(move, lease_seq) → what becomes of the row; every move that somebody could make now."""
    led_to = {(step.move, step.lease_seq): row_of(step.job) for step in steps(job, Design(), FAR)}
    current = job.lease_seq
    for move in BARE:
        key = (move, current if move == "start" else 0)
        yield (move, 0), led_to.get(key, row_of(job))
    for lease_seq in range(1, job.highest + 1):
        for move in ("start", "release a ticket", "renew a ticket"):
            yield (move, lease_seq), led_to.get((move, lease_seq), row_of(job))
    for run in job.runs:
        for move in OUTCOMES if run.state == "over" else ["extend"] if run.state == "busy" else []:
            if not (run.is_last and move.startswith("retry")):
                key = (move, run.lease_seq)
                yield key, led_to.get(key, row_of(job))


@cache
def cases() -> dict[tuple[Row, str, int], Row]:
    """Every row that can come about with every move on it, and what that leads to."""
    found: dict[tuple[Row, str, int], Row] = {}
    for job in reachable(Design(), Bounds(leases=3)):
        for (move, lease_seq), after in expected_of(job):
            case = (row_of(job), move, lease_seq)
            assert found.setdefault(case, after) == after, "the row alone decides"
    return found


async def differences(table: Table) -> AsyncGenerator[str]:
    """Where a statement does something else than the model says."""
    await table.begin()
    for (before, move, lease_seq), after in cases().items():
        for statement in BARE[move] if not lease_seq else [NUMBERED[move]]:
            table.clock.at = MIDNIGHT
            table.write(before)
            try:
                await statement(table, lease_seq)
                found: object = table.read()
            except psycopg.errors.IntegrityError as refusal:
                found = refusal
            if found != after:
                yield f"{statement.__name__} {lease_seq} on {before}: {found}, not {after}"


@pytest.mark.slow
async def test_every_statement_does_on_every_row_what_the_model_says(
    store: JobStore, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    assert [one async for one in differences(Table(store, clock, db))] == []
    assert LAPSED in {before.lease for before, _, _ in cases()}
    assert len(cases()) > 500


@pytest.mark.slow
@pytest.mark.parametrize("bug", ROW_BUGS, ids=bug_id)
async def test_a_bug_that_is_planted_in_a_move_is_found(
    store: JobStore,
    clock: SettableClock,
    db: psycopg.Connection[Any],
    database: str,
    bug: Bug,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with planted(bug, monkeypatch, database):
        found = differences(Table(store, clock, db))

        assert await anext(found, None) is not None
        await found.aclose()
