"""The life of one job as the statements make it, small enough to try every order of moves.

    job        the columns that decide: status, due, lease, lease_seq, attempts, max_attempts,
               cancel_requested_at. Leased is pending with a lease; only running holds an attempt.
    moves      one for each statement, and one step: a statement is atomic on its row
               (`tests/store/test_pairs.py`) and does what the move does
               (`tests/store/test_protocol.py`). Steps come in any order.
    tickets    once a lease exists, its ticket may arrive at any moment, any number of times, or
               never: messages that are lost, doubled, late or overtaken, and a scheduler that dies
               between lease and send. Release and renewal may come as late and as often.
    workers    each start is a worker of its own: any number of them, each of which may stall
               anywhere, heartbeat, report, report again, or vanish. A stall is a step not taken.
    time       a live lease may lapse at any moment. Nothing else is known of clocks.

What must hold is never assumed: `broken_by` looks at every step that is taken and names the
property it breaks. The fields below the line in `Job` exist for that alone; no move reads them
in the design. A `Design` with a switch set is a weaker system, and has to be caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

PENDING, RUNNING, SUCCEEDED, DEAD, CANCELLED = (
    "pending",
    "running",
    "succeeded",
    "dead",
    "cancelled",
)
FINISHED = frozenset({SUCCEEDED, DEAD, CANCELLED})
NONE, LIVE, LAPSED = "none", "live", "lapsed"
BUSY, OVER, GONE = "busy", "over", "gone"


class Run(NamedTuple):
    """A worker's attempt: the handler is busy or over, or the worker is gone."""

    lease_seq: int
    attempt: int
    is_last: bool
    state: str = BUSY


class Job(NamedTuple):
    """The row, the workers that ever started it, and what the properties need to remember."""

    status: str = PENDING
    due: bool = True
    lease: str = NONE
    lease_seq: int = 0
    attempts: int = 0
    max_attempts: int = 2
    cancel_asked: bool = False
    runs: tuple[Run, ...] = ()
    seen_open: frozenset[int] = frozenset()  # leases that a start or rescue has read, and no more
    # ---------------------------------------- for the properties
    highest: int = 0
    holder: int = 0  # the lease_seq whose attempt is the current one, 0 if none is
    used: int = 0  # starts that were not given back
    acknowledged: bool = False  # a cancel was, and nobody requeued the job since
    lapsed: frozenset[int] = frozenset()
    requeues: int = 0

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The system as built; each switch takes one guard out of it."""

    finish_without_fence: bool = False
    finish_by_live_lease: bool = False
    finish_by_attempt: bool = False
    finish_ignores_status: bool = False
    finish_forgets_cancel: bool = False
    start_in_two_steps: bool = False
    start_on_lapsed_lease: bool = False
    start_ignores_lease: bool = False
    start_ignores_status: bool = False
    extend_without_fence: bool = False
    extend_ignores_status: bool = False
    release_without_fence: bool = False
    release_ignores_status: bool = False
    rescue_ignores_time: bool = False
    rescue_in_two_steps: bool = False
    rescue_forgets_cancel: bool = False
    rescue_gives_attempts_back: bool = False
    rescue_never: bool = False
    lease_keeps_number: bool = False
    lease_counts_attempt: bool = False
    snooze_lowers_fence: bool = False
    cancel_keeps_lease: bool = False
    cancel_ends_running: bool = False
    requeue_any: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far the exploration goes: the leases a job may get, and its requeues."""

    leases: int = 4
    requeues: int = 1


class Step(NamedTuple):
    """One move: its name, under which lease_seq it is made (0: none), and what it leads to."""

    move: str
    lease_seq: int
    job: Job


def steps(job: Job, design: Design, bounds: Bounds) -> Iterator[Step]:
    """Every move that changes *job*."""
    yield from _schedulers(job, design, bounds)
    for lease_seq in range(1, job.highest + 1):
        yield from _tickets(job, lease_seq, design)
    yield from _bare_tickets(job, design)
    for run in job.runs:
        yield from _workers(job, run, design)
    yield from _operators(job, design, bounds)


# --- schedulers and time


def _schedulers(job: Job, design: Design, bounds: Bounds) -> Iterator[Step]:
    if job.status == PENDING and not job.due and job.lease == NONE:
        yield Step("promote", 0, job._replace(due=True))
    if job.due and job.highest < bounds.leases:
        leased = _leased(job, design)
        yield Step("lease", 0, leased)
        for step in _start(leased, leased.lease_seq, Design()):
            yield step._replace(move="claim", lease_seq=0)
    if job.lease == LIVE:
        lapsed = job.lapsed | {job.lease_seq}
        yield Step("time passes", 0, job._replace(lease=LAPSED, lapsed=lapsed))
    if design.rescue_never:
        return
    ran_out = job.lease == LAPSED or (design.rescue_ignores_time and job.lease == LIVE)
    if design.rescue_in_two_steps:
        if ran_out and 0 not in job.seen_open:
            yield Step("rescue reads", 0, job._replace(seen_open=job.seen_open | {0}))
        if 0 in job.seen_open:
            written = _rescued(job, design)
            yield Step("rescue", 0, written._replace(seen_open=job.seen_open - {0}))
    elif ran_out:
        yield Step("rescue", 0, _rescued(job, design))


def _leased(job: Job, design: Design) -> Job:
    lease_seq = job.lease_seq + (0 if design.lease_keeps_number and job.lease_seq else 1)
    return job._replace(
        due=False,
        lease=LIVE,
        lease_seq=lease_seq,
        attempts=min(job.attempts + design.lease_counts_attempt, job.max_attempts),
        # A number used again is a lease more all the same, or the exploration would not end.
        highest=max(job.highest + design.lease_keeps_number, lease_seq),
        lapsed=job.lapsed - {lease_seq},
    )


def _rescued(job: Job, design: Design) -> Job:
    if job.status == PENDING:
        return job._replace(due=True, lease=NONE)
    attempts = job.attempts - design.rescue_gives_attempts_back
    freed = job._replace(lease=NONE, due=False, attempts=attempts, holder=0)
    if job.cancel_asked and not design.rescue_forgets_cancel:
        return freed._replace(status=CANCELLED)
    if attempts >= job.max_attempts:
        return freed._replace(status=DEAD)
    return freed._replace(status=PENDING, due=True)


# --- tickets: start, release, renewal


def _tickets(job: Job, lease_seq: int, design: Design) -> Iterator[Step]:
    own = job.lease_seq == lease_seq
    leased = job.status == PENDING and job.lease != NONE
    if own and (leased or _started_blindly(job, lease_seq, design)):
        yield from _start(job, lease_seq, design)
    releasable = leased or (design.release_ignores_status and job.lease != NONE)
    if releasable and (own or design.release_without_fence):
        back = job._replace(status=PENDING, due=True, lease=NONE, holder=0)
        yield Step("release a ticket", lease_seq, back)
    if own and leased:
        yield Step("renew a ticket", lease_seq, job._replace(lease=LIVE))


def _bare_tickets(job: Job, design: Design) -> Iterator[Step]:
    """A message with a bare id opens the lease the job has now; so does a pick from the table."""
    if job.status == PENDING and job.lease != NONE and not design.start_in_two_steps:
        yield from _start(job, job.lease_seq, design)
    if design.start_ignores_lease and job.status == PENDING and job.lease == NONE:
        yield from _start(job, job.lease_seq, design)


def _started_blindly(job: Job, lease_seq: int, design: Design) -> bool:
    read_before = design.start_in_two_steps and lease_seq in job.seen_open
    return read_before or (design.start_ignores_status and job.status == RUNNING)


def _start(job: Job, lease_seq: int, design: Design) -> Iterator[Step]:
    live = job.lease == LIVE or design.start_on_lapsed_lease or design.start_ignores_lease
    if design.start_in_two_steps:
        if lease_seq not in job.seen_open:
            if live and job.attempts < job.max_attempts:
                read = job._replace(seen_open=job.seen_open | {lease_seq})
                yield Step("start reads", lease_seq, read)
            return
    elif not live or job.attempts >= job.max_attempts:
        return
    attempts = min(job.attempts + (not design.lease_counts_attempt), job.max_attempts)
    run = Run(lease_seq, attempts, attempts >= job.max_attempts)
    yield Step(
        "start",
        lease_seq,
        job._replace(
            status=RUNNING,
            due=False,
            lease=LIVE,
            attempts=attempts,
            runs=tuple(sorted((*job.runs, run))),
            holder=lease_seq,
            used=job.used + 1,
        ),
    )


# --- what workers say: heartbeat and outcome


def _workers(job: Job, run: Run, design: Design) -> Iterator[Step]:
    if run.state == BUSY:
        yield Step("the handler ends", run.lease_seq, _with_run(job, run, OVER))
    if run.state != GONE:
        yield Step("the worker vanishes", run.lease_seq, _with_run(job, run, GONE))
        if _extends(job, run, design):
            yield Step("extend", run.lease_seq, job._replace(lease=LIVE))
    if run.state == OVER and _reports(job, run, design):
        yield from _outcomes(job, run, design)


def _with_run(job: Job, run: Run, state: str) -> Job:
    others = list(job.runs)
    others.remove(run)
    return job._replace(runs=tuple(sorted((*others, run._replace(state=state)))))


def _extends(job: Job, run: Run, design: Design) -> bool:
    own = job.lease_seq == run.lease_seq or design.extend_without_fence
    return own and (job.status == RUNNING or design.extend_ignores_status)


def _reports(job: Job, run: Run, design: Design) -> bool:
    if design.finish_by_live_lease:
        return job.status == RUNNING and job.lease == LIVE
    if design.finish_by_attempt:
        return job.status == RUNNING and job.attempts == run.attempt
    own = job.lease_seq == run.lease_seq or design.finish_without_fence
    return own and (job.status == RUNNING or design.finish_ignores_status)


def _outcomes(job: Job, run: Run, design: Design) -> Iterator[Step]:
    freed = job._replace(lease=NONE, due=False, holder=0)
    for move, status in (("succeed", SUCCEEDED), ("bury", DEAD), ("end cancelled", CANCELLED)):
        yield Step(move, run.lease_seq, freed._replace(status=status))
    back = freed._replace(status=PENDING)
    if job.cancel_asked and not design.finish_forgets_cancel:
        back = back._replace(status=CANCELLED)
    waits = back.status == PENDING
    unused = back._replace(attempts=job.attempts - 1, used=job.used - 1)
    if not run.is_last:
        yield Step("retry", run.lease_seq, back)
        yield Step("retry at once", run.lease_seq, back._replace(due=waits))
    lower = design.snooze_lowers_fence and waits
    yield Step(
        "snooze", run.lease_seq, unused._replace(lease_seq=unused.lease_seq - (1 if lower else 0))
    )
    yield Step("release an attempt", run.lease_seq, unused._replace(due=waits))


# --- operators


def _operators(job: Job, design: Design, bounds: Bounds) -> Iterator[Step]:
    if not job.finished:
        yield Step("cancel", 0, _cancelled(job, design))
    if (job.finished or design.requeue_any) and job.requeues < bounds.requeues:
        fresh = job._replace(
            status=PENDING,
            due=True,
            cancel_asked=False,
            max_attempts=job.attempts + 1,
            acknowledged=False,
            requeues=job.requeues + 1,
        )
        yield Step("requeue", 0, fresh)


def _cancelled(job: Job, design: Design) -> Job:
    asked = job._replace(cancel_asked=True, acknowledged=True, due=False)
    if job.status == RUNNING and not design.cancel_ends_running:
        return asked
    lease = job.lease if design.cancel_keeps_lease else NONE
    return asked._replace(status=CANCELLED, lease=lease)
