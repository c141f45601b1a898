"""Why a job is where it is: every cause that holds it back, the decisive one first. Pure.

    finished, running       what became of it, or who runs it
    scheduled               not due yet, or the backoff of a failed attempt
    leased                  on its way to a worker, and until when the lease lasts
    waiting                 what keeps the schedulers from leasing it, as they ask it

The scheduler decides with the same rules and figures (`core/breaker.py`, `core/rate.py`,
`core/fairness.py`), a moment earlier or later than the snapshot. Not looked at: whether the
tenant is above its share of a use case under pressure, for that depends on who else waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from async_jobs.core.breaker import Breaker, seconds_to_probe
from async_jobs.core.rate import Rate
from async_jobs.models import JobStatus

MOST_AHEAD = 10_000
"""Jobs ahead are counted so far and no further."""
GONE_AFTER_SECONDS = 60.0
"""A process that has not been seen for so long counts as gone."""
HELD_BY = "held_by"
MOST_ARE_HELD = " Most are held by: "

Figure = float | int | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One job and what stands between it and a worker, at one moment; times in seconds from it."""

    job_id: UUID
    tenant_id: str
    use_case: str
    type: str
    queue: str
    status: str
    due: bool
    attempts: int
    max_attempts: int
    is_retry: bool
    enqueue_failed: bool
    cancel_requested: bool
    has_failed: bool
    worker: str | None
    run_in_seconds: float
    slack_seconds: float
    leased_seconds: float | None
    lease_left_seconds: float | None
    started_seconds: float | None
    finished_seconds: float | None
    in_flight: int
    tenant_in_flight: int
    holders: Sequence[str]
    holdings: Sequence[int]
    ahead: int
    pressure: bool
    lowered_capacity: int | None
    rate_ahead_seconds: float
    breaker_open_seconds: float | None
    breaker_probed_seconds: float
    schedulers: int
    workers_of_queue: int
    workers_of_type: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the configuration, with what operators have changed, allows this job's kind."""

    capacity: int
    most_in_flight: int | None = None
    rate: Rate | None = None
    paused_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that holds the job back: a code for programs, a sentence, and its figures."""

    code: str
    text: str
    figures: Mapping[str, Figure]

    def without_names(self) -> Cause:
        """The same without the tenants that hold slots."""
        if HELD_BY not in self.figures:
            return self
        figures = {name: value for name, value in self.figures.items() if name != HELD_BY}
        return Cause(code=self.code, text=self.text.partition(MOST_ARE_HELD)[0], figures=figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a job is and why; `causes` has the decisive one first and is never empty."""

    job_id: UUID
    state: str
    causes: Sequence[Cause]

    @property
    def summary(self) -> str:
        """The decisive cause, in a sentence."""
        return self.causes[0].text

    def for_tenant(self) -> Explanation:
        """The same without the names of other tenants."""
        return replace(self, causes=[each.without_names() for each in self.causes])


def explain(snapshot: Snapshot, bounds: Bounds) -> Explanation:
    """Every cause that the snapshot shows, the decisive one first."""
    state, causes = _found(snapshot, bounds)
    return Explanation(job_id=snapshot.job_id, state=state, causes=causes)


def _found(snapshot: Snapshot, bounds: Bounds) -> tuple[str, list[Cause]]:
    if JobStatus(snapshot.status).is_finished:
        return snapshot.status, [_finished(snapshot)]
    if snapshot.status == JobStatus.RUNNING:
        return "running", list(_running(snapshot))
    if snapshot.leased_seconds is not None:
        return "leased", [_on_its_way(snapshot), *_absent_workers(snapshot)]
    if not snapshot.due:
        return "scheduled", [_not_due(snapshot), *_paused(snapshot, bounds)]
    causes = [*_shut_out(snapshot, bounds), *_queued(snapshot), *_absent_workers(snapshot)]
    return "waiting", causes or [
        _cause("next", "It is next: a scheduler leases it on its next pass.")
    ]


def _cause(code: str, text: str, **figures: Figure) -> Cause:
    return Cause(code=code, text=text, figures=figures)


def _finished(snapshot: Snapshot) -> Cause:
    ago = snapshot.finished_seconds or 0.0
    return _cause(
        snapshot.status,
        f"It is {snapshot.status} since {_time(ago)}, after {_attempts(snapshot.attempts)}.",
        finished_seconds=ago,
        attempts=snapshot.attempts,
    )


def _running(snapshot: Snapshot) -> Iterator[Cause]:
    since, left = snapshot.started_seconds or 0.0, snapshot.lease_left_seconds or 0.0
    if left < 0:
        yield _cause(
            "lease_ran_out",
            f"Its worker has not been heard of: the lease ran out {_time(-left)} ago and a "
            "scheduler takes the job back.",
            worker=snapshot.worker,
            lease_left_seconds=left,
        )
    yield _cause(
        "running",
        f"It runs since {_time(since)} in {snapshot.worker}, attempt {snapshot.attempts} of "
        f"{snapshot.max_attempts}.",
        worker=snapshot.worker,
        started_seconds=since,
        attempt=snapshot.attempts,
    )
    if snapshot.cancel_requested:
        text = "Somebody asked it to end; its worker does that at its next heartbeat."
        yield _cause("cancel_asked", text)


def _on_its_way(snapshot: Snapshot) -> Cause:
    since, left = snapshot.leased_seconds or 0.0, snapshot.lease_left_seconds or 0.0
    follows = (
        f"no worker has started it; the lease runs out in {_time(left)}, and then it waits again"
        if left > 0
        else f"the lease ran out {_time(-left)} ago and a scheduler takes it back"
    )
    return _cause(
        "on_its_way",
        f"It was leased {_time(since)} ago and is on its way to a worker: {follows}.",
        leased_seconds=since,
        lease_left_seconds=left,
    )


def _not_due(snapshot: Snapshot) -> Cause:
    wait = max(0.0, snapshot.run_in_seconds)
    if snapshot.is_retry and snapshot.has_failed:
        return _cause(
            "backoff",
            f"Attempt {snapshot.attempts} of {snapshot.max_attempts} failed; its backoff ends in "
            f"{_time(wait)}.",
            run_in_seconds=wait,
            attempts=snapshot.attempts,
        )
    return _cause("not_due", f"It is not due for another {_time(wait)}.", run_in_seconds=wait)


def _paused(snapshot: Snapshot, bounds: Bounds) -> Iterator[Cause]:
    if bounds.paused_by is not None:
        yield _cause(
            "paused",
            f"The use case {snapshot.use_case} is paused by {bounds.paused_by}; "
            f"`async-jobs resume {snapshot.use_case}` lets it go on.",
            paused_by=bounds.paused_by,
        )


def _shut_out(snapshot: Snapshot, bounds: Bounds) -> Iterator[Cause]:
    """What keeps the schedulers from leasing it at all."""
    if not snapshot.schedulers:
        yield _cause(
            "no_scheduler",
            f"No scheduler for {snapshot.use_case} has been seen for {_time(GONE_AFTER_SECONDS)}.",
            schedulers=0,
        )
    yield from _paused(snapshot, bounds)
    if snapshot.breaker_open_seconds is not None:
        yield _breaker(snapshot, snapshot.breaker_open_seconds)
    if bounds.most_in_flight is not None and snapshot.tenant_in_flight >= bounds.most_in_flight:
        yield _cause(
            "tenant_quota",
            f"Its tenant has {snapshot.tenant_in_flight} jobs in flight, and its quota is "
            f"{bounds.most_in_flight}.",
            tenant_in_flight=snapshot.tenant_in_flight,
            quota=bounds.most_in_flight,
        )
    if bounds.rate is not None and not bounds.rate.allowed(snapshot.rate_ahead_seconds):
        wait = bounds.rate.wait_seconds(snapshot.rate_ahead_seconds)
        yield _cause(
            "rate",
            f"Its tenant's rate of {bounds.rate.per_second:g} jobs a second is used up; the next "
            f"may go in {_time(wait)}.",
            rate_per_second=bounds.rate.per_second,
            wait_seconds=wait,
        )
    yield from _capacity(snapshot, bounds)


def _breaker(snapshot: Snapshot, open_seconds: float) -> Cause:
    state = Breaker(open_seconds=open_seconds, probed_seconds=snapshot.breaker_probed_seconds)
    wait = seconds_to_probe(state)
    return _cause(
        "breaker",
        f"Jobs of the type {snapshot.type} of its tenant mostly fail: their breaker is open since "
        f"{_time(open_seconds)}, and one of them is tried in {_time(wait)}.",
        open_seconds=open_seconds,
        probe_in_seconds=wait,
    )


def _capacity(snapshot: Snapshot, bounds: Bounds) -> Iterator[Cause]:
    lowered = snapshot.lowered_capacity
    capacity = bounds.capacity if lowered is None else min(lowered, bounds.capacity)
    if snapshot.in_flight < capacity:
        return
    shown = zip(snapshot.holders, snapshot.holdings, strict=True)
    most = ", ".join(f"{tenant} {jobs}" for tenant, jobs in shown) or "nobody"
    reason = (
        f"backpressure has lowered its capacity from {bounds.capacity} to {capacity}"
        if capacity < bounds.capacity
        else f"its capacity is {capacity}"
    )
    yield _cause(
        "capacity_lowered" if capacity < bounds.capacity else "capacity_full",
        f"The use case {snapshot.use_case} has {snapshot.in_flight} jobs in flight, and {reason}."
        f"{MOST_ARE_HELD}{most}.",
        in_flight=snapshot.in_flight,
        capacity=capacity,
        configured_capacity=bounds.capacity,
        **{HELD_BY: most},
    )


def _queued(snapshot: Snapshot) -> Iterator[Cause]:
    """What is to go before it."""
    if snapshot.enqueue_failed:
        text = "Its queue did not accept it at the last attempt to send it; it will be sent again."
        yield _cause("send_failed", text)
    if snapshot.ahead:
        cut = snapshot.ahead >= MOST_AHEAD
        text = f"It is behind {'at least ' if cut else ''}{snapshot.ahead} with earlier deadlines."
        yield _cause("behind", text, ahead=snapshot.ahead, ahead_cut=cut)
    if snapshot.slack_seconds < 0:
        late = -snapshot.slack_seconds
        text = f"It is late by {_time(late)}: late jobs get every tenth start, and idle slots."
        yield _cause("late", text, late_by_seconds=late)
    if snapshot.is_retry and snapshot.pressure:
        text = "It is a retry under pressure: retries get a tenth of the starts at most."
        yield _cause("retry_budget", text)


def _absent_workers(snapshot: Snapshot) -> Iterator[Cause]:
    if not snapshot.workers_of_queue:
        yield _cause(
            "no_worker",
            f"No worker for the queue {snapshot.queue} has been seen for "
            f"{_time(GONE_AFTER_SECONDS)}.",
            queue=snapshot.queue,
        )
    elif not snapshot.workers_of_type:
        yield _cause(
            "no_worker_for_type",
            f"{snapshot.workers_of_queue} workers take jobs from the queue {snapshot.queue}, and "
            f"none of them has a handler for the type {snapshot.type}.",
            queue=snapshot.queue,
            type=snapshot.type,
        )


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def _time(seconds: float) -> str:
    """Seconds in the unit in which a person would say them."""
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.1f} s"
