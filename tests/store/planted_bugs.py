"""Bugs that a careless change of a statement could bring; each must be found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
import pytest

from async_jobs.store import late, turn
from async_jobs.store.queries import statements

TOPICS = ("jobs", "turn", "late", "functions")
_CONSTANTS = {
    "lease_due": (turn, "_LEASE_DUE"),
    "lease_chosen": (turn, "_LEASE_CHOSEN"),
    "count_in_flight": (turn, "_COUNT_IN_FLIGHT"),
    "end_late": (late, "_END_LATE"),
}


class Bug(NamedTuple):
    """A statement in which one text stands instead of another."""

    name: str
    statement: str
    right: str
    wrong: str


_EXPIRED = "lease_expires_at <= coalesce(%(now)s::timestamptz, clock_timestamp())"
_LIVE = "AND lease_expires_at > coalesce(told_now, clock_timestamp())"
ROW_BUGS = (
    Bug(
        "a worker that lost its lease records an outcome",
        "jobs_finish",
        "AND jobs.lease_seq = outcome.lease_seq",
        "",
    ),
    Bug(
        "an outcome counts though nothing runs",
        "jobs_finish",
        "CASE WHEN jobs.status = 'running' THEN true END",
        "true",
    ),
    Bug(
        "a retry forgets that a cancel was asked for",
        "jobs_finish",
        "'pending' AND cancel_requested_at IS NOT NULL",
        "'pending' AND false",
    ),
    Bug(
        "a snooze keeps the attempt",
        "jobs_finish",
        "attempts - outcome.attempts_back",
        "attempts",
    ),
    Bug("a ticket opens a lease that ran out", "jobs_start", _LIVE, ""),
    Bug("an old ticket is given back", "release_jobs", "AND jobs.lease_seq = ticket.lease_seq", ""),
    Bug(
        "a heartbeat renews another's lease",
        "extend_attempts",
        "AND jobs.lease_seq = held.lease_seq",
        "",
    ),
    Bug("a rescue does not look at the time", "rescue_jobs", _EXPIRED, "true"),
    Bug(
        "a lost worker costs no attempt",
        "rescue_jobs",
        "WHEN attempts >= max_attempts THEN 'dead'",
        "WHEN false THEN 'dead'",
    ),
    Bug("an unfinished job can be requeued", "requeue_job", "AND finished_at IS NOT NULL", ""),
)
"""Found on one row, by `test_protocol.py`."""
WALK_BUGS = (
    Bug(
        "a lease keeps the number of the last",
        "lease_due",
        "lease_seq = lease_seq + 1",
        "lease_seq = greatest(lease_seq, 1)",
    ),
    Bug(
        "the least urgent job comes first",
        "lease_due",
        "ORDER BY deadline_at,",
        "ORDER BY deadline_at DESC,",
    ),
    Bug(
        "running jobs take no slot",
        "count_in_flight",
        "AND leased_at IS NOT NULL",
        "AND leased_at IS NOT NULL AND status = 'pending'",
    ),
    Bug(
        "jobs in time are ended as late",
        "end_late",
        "AND deadline_at < (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))",
        "",
    ),
)
"""Found among many jobs, by a walk."""


def bug_id(bug: Bug) -> str:
    return bug.name.replace(" ", "_")


@contextmanager
def planted(bug: Bug, monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[None]:
    """The store runs the statement with the wrong text, or *database* has the function with it."""
    known = {name: text for topic in TOPICS for name, text in statements(topic).items()}
    right = known[bug.statement]
    assert right.decode().count(bug.right) >= 1, "the statement does not say that any more"
    wrong = right.decode().replace(bug.right, bug.wrong).encode()
    if bug.statement in statements("functions"):
        with psycopg.connect(database, autocommit=True) as conn:
            conn.execute(wrong)
            try:
                yield
            finally:
                conn.execute(right)
        return
    if bug.statement in _CONSTANTS:
        monkeypatch.setattr(*_CONSTANTS[bug.statement], wrong)
    else:
        monkeypatch.setitem(statements("jobs"), bug.statement, wrong)
    yield
