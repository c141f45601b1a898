"""The table of moves is complete and says what the design says."""

from __future__ import annotations

import pytest

from async_jobs.core.lifecycle import LIFECYCLE, Move, allowed
from async_jobs.models import JobStatus
from async_jobs.store.queries import statements

P, R = JobStatus.PENDING, JobStatus.RUNNING
S, D, C = JobStatus.SUCCEEDED, JobStatus.DEAD, JobStatus.CANCELLED

LEGAL = {
    *((P, P), (P, R), (P, C), (P, D)),
    *((R, R), (R, P), (R, S), (R, D), (R, C)),
    *((S, P), (D, P), (C, P)),
}
STATEMENTS = {
    Move.ENQUEUE: {"insert_job", "insert_jobs", "insert_absent_jobs"},
    Move.LEASE: {"lease_due", "lease_chosen"},
    Move.RELEASE: {"release_jobs", "finish_attempts"},
    Move.START: {"start_jobs", "start_leased"},
    Move.CLAIM: {"claim_due"},
    Move.EXTEND: {"extend_attempts"},
    Move.SUCCEED: {"finish_attempts"},
    Move.RETRY: {"finish_attempts"},
    Move.SNOOZE: {"finish_attempts"},
    Move.BURY: {"finish_attempts"},
    Move.RESCUE: {"rescue_jobs"},
    Move.CANCEL: {"cancel_job", "finish_attempts"},
    Move.END_LATE: {"end_late", "finish_attempts"},
    Move.REQUEUE: {"requeue_job"},
    Move.PRUNE: {"prune_finished"},
}


@pytest.mark.parametrize("before", JobStatus)
@pytest.mark.parametrize("after", JobStatus)
def test_exactly_the_legal_transitions_are_allowed(before: JobStatus, after: JobStatus) -> None:
    assert allowed(before, after) == ((before, after) in LEGAL)


def test_every_move_has_one_rule() -> None:
    assert sorted(Move) == sorted(rule.move for rule in LIFECYCLE)


def test_a_finished_job_leaves_only_by_requeue_or_prune() -> None:
    leaving = {rule.move for rule in LIFECYCLE if any(s.is_finished for s in rule.from_statuses)}

    assert leaving == {Move.REQUEUE, Move.PRUNE}


def test_a_job_runs_only_through_start_or_claim() -> None:
    entering = {rule.move for rule in LIFECYCLE if R in rule.to_statuses} - {Move.EXTEND}

    assert entering == {Move.START, Move.CLAIM}


@pytest.mark.parametrize("move", Move)
def test_every_move_has_its_statements(move: Move) -> None:
    topics = ("single", "jobs", "turn", "late", "claims")
    known = {name for topic in topics for name in statements(topic)}

    assert STATEMENTS[move] <= known


def test_every_rule_says_who_makes_the_move_and_what_it_needs() -> None:
    assert all(rule.actor and rule.needs for rule in LIFECYCLE)
