"""The moves of a job: from which status, to which, who makes them.

The table below is the whole life of a job. The store has one statement for
each move, an event is named after it, and `docs/reference/lifecycle.md` is
printed from it. Sub-states of pending are derived, never stored as a status:

    scheduled   run_at has not come yet             due = false, no lease
    waiting     due, nobody holds a lease           due = true
    leased      a message is on its way             leased_at is set

A job that is leased or running is *in flight*: it takes one slot of its use
case's capacity from the lease to the finish. `leased_at`, not the status, says
so, because it stays as it is from lease to finish.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from async_jobs.models import JobStatus

PENDING, RUNNING = JobStatus.PENDING, JobStatus.RUNNING
SUCCEEDED, DEAD, CANCELLED = JobStatus.SUCCEEDED, JobStatus.DEAD, JobStatus.CANCELLED


class Move(StrEnum):
    """The verbs. Each has one statement in `store/*.sql` and one event."""

    ENQUEUE = "enqueue"
    LEASE = "lease"
    RELEASE = "release"
    START = "start"
    CLAIM = "claim"
    EXTEND = "extend"
    SUCCEED = "succeed"
    RETRY = "retry"
    SNOOZE = "snooze"
    BURY = "bury"
    RESCUE = "rescue"
    CANCEL = "cancel"
    END_LATE = "end_late"
    REQUEUE = "requeue"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: where a move leads, who makes it, what must hold."""

    move: Move
    from_statuses: tuple[JobStatus, ...]
    to_statuses: tuple[JobStatus, ...]
    actor: str
    needs: str


LIFECYCLE = (
    Rule(Move.ENQUEUE, (), (PENDING,), "producer", "quota left, no unfinished twin by dedupe_key"),
    Rule(Move.LEASE, (PENDING,), (PENDING,), "scheduler", "due, no lease, a free slot"),
    Rule(
        Move.RELEASE,
        (PENDING, RUNNING),
        (PENDING,),
        "scheduler, worker",
        "the same lease_seq; gives the attempt back",
    ),
    Rule(Move.START, (PENDING,), (RUNNING,), "worker", "the same lease_seq, a live lease"),
    Rule(
        Move.CLAIM,
        (PENDING,),
        (RUNNING,),
        "worker",
        "due, no lease, a free slot, a scheduler's grant: lease and start in one",
    ),
    Rule(Move.EXTEND, (RUNNING,), (RUNNING,), "worker", "the same lease_seq"),
    Rule(Move.SUCCEED, (RUNNING,), (SUCCEEDED,), "worker", "the same lease_seq"),
    Rule(Move.RETRY, (RUNNING,), (PENDING,), "worker", "the same lease_seq, attempts left"),
    Rule(Move.SNOOZE, (RUNNING,), (PENDING,), "worker", "the same lease_seq"),
    Rule(Move.BURY, (RUNNING,), (DEAD,), "worker", "the same lease_seq"),
    Rule(
        Move.RESCUE,
        (PENDING, RUNNING),
        (PENDING, DEAD, CANCELLED),
        "scheduler",
        "the lease ran out; cancelled if that was asked for",
    ),
    Rule(Move.CANCEL, (PENDING, RUNNING), (CANCELLED,), "operator", "not finished"),
    Rule(
        Move.END_LATE,
        (PENDING, RUNNING),
        (CANCELLED, DEAD),
        "scheduler, worker",
        "its deadline has passed; gives the attempt back",
    ),
    Rule(
        Move.REQUEUE,
        (SUCCEEDED, DEAD, CANCELLED),
        (PENDING,),
        "operator",
        "no unfinished twin by dedupe_key",
    ),
    Rule(Move.PRUNE, (SUCCEEDED, DEAD, CANCELLED), (), "scheduler", "older than the retention"),
)


def allowed(before: JobStatus, after: JobStatus) -> bool:
    """Whether some move leads from *before* to *after*."""
    return any(before in rule.from_statuses and after in rule.to_statuses for rule in LIFECYCLE)
