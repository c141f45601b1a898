"""When a new job will start, and whether that is in time. Pure.

A use case's waiting jobs are served by deadline, so what counts is the demand up to the new
job's deadline, in jobs:

    ahead       waiting jobs with an earlier or equal deadline that are not late themselves
                (late ones get every tenth start: `core/fairness.py`)
    in flight   leased and running jobs: they free the slots
    to come     jobs that will arrive with an earlier deadline: scheduled ones, and as many of
                each tolerance as arrived lately, for as long as that has been going on

The wait is that demand, less the slots, over the drain rate: the fixed point of

    wait = (ahead + in flight + 1 - slots + to_come(wait)) / rate

The rate is capacity / mean run time, or the completions a second that were measured while jobs
waited, if those are fewer: fewer workers than capacity, a slow database, a stopped queue. Time
in which nobody waited says nothing about how fast the queue drains, so it is left out.

What is not known here: quotas, rates and breakers of single tenants, and who is above its
share. With nothing measured there is no forecast.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DISPATCH_SECONDS = 0.1
"""What a start takes in an idle system."""
LATE_LANE = 0.1
MOST_STEPS = 50
GRACE_SECONDS = 1.0
"""A wait this long is no sign of a backlog: a worker may just have been between two polls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished job, by how many seconds ago it became due, started and finished."""

    due_ago: float
    started_ago: float
    finished_ago: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a use case has to do, at one moment. All times in seconds from that moment.

    `marks` are the slacks of waiting jobs that are not late, earliest first, and `places` how many
    such jobs there are up to each; `cut`: there are more, not counted. `scheduled` are (run in,
    slack) of jobs that become due next, `tolerances` those of the jobs of the last
    `arriving_seconds`. `head_waits` is how long the most urgent job has waited.
    """

    marks: Sequence[float] = ()
    places: Sequence[int] = ()
    cut: bool = False
    any_late: bool = False
    in_flight: int = 0
    head_waits: float | None = None
    scheduled: Sequence[tuple[float, float]] = ()
    tolerances: Sequence[float] = ()
    arriving_seconds: float = 0.0
    finished: Sequence[Finished] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a use case works: `slots` at once, `per_second` completions."""

    slots: float
    per_second: float


def pace(demand: Demand, capacity: int) -> Pace | None:
    """The pace to expect of *demand*; None if nothing has been measured."""
    if not demand.finished:
        return None
    ran = [max(0.0, one.started_ago - one.finished_ago) for one in demand.finished]
    mean_seconds = max(1e-3, sum(ran) / len(ran))
    per_second = capacity / mean_seconds
    measured = _measured_per_second(demand, mean_seconds)
    if measured is not None:
        per_second = min(per_second, measured)
    return Pace(slots=min(capacity, per_second * mean_seconds), per_second=per_second)


def _measured_per_second(demand: Demand, mean_seconds: float) -> float | None:
    """Completions a second while some job waited; None if that was too short to tell."""
    finished = demand.finished
    oldest = max(one.finished_ago for one in finished)
    waits = [(one.due_ago - GRACE_SECONDS, one.started_ago) for one in finished]
    if demand.head_waits is not None:
        waits.append((demand.head_waits - GRACE_SECONDS, 0.0))
    busy = _union((min(since, oldest), until) for since, until in waits)
    seconds = sum(since - until for since, until in busy)
    if seconds < max(GRACE_SECONDS, 2 * mean_seconds):
        return None
    done = sum(any(until <= one.finished_ago <= since for since, until in busy) for one in finished)
    return max(1, done - 1) / seconds


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans (since, until), both in seconds ago, joined where they touch."""
    joined: list[tuple[float, float]] = []
    for since, until in sorted((one for one in spans if one[0] > one[1]), reverse=True):
        if joined and since >= joined[-1][1]:
            joined[-1] = (joined[-1][0], min(until, joined[-1][1]))
        else:
            joined.append((since, until))
    return joined


def starts_in(
    demand: Demand,
    pace: Pace,
    *,
    slack_seconds: float,
    run_in_seconds: float = 0.0,
    more_ahead: int = 0,
    age_seconds: float = 0.0,
) -> float:
    """In how many seconds a job with this slack starts; infinite if it is not to be foreseen.

    *more_ahead* are jobs with an earlier deadline that came after the demand was read,
    *age_seconds* ago.
    """
    per_second = pace.per_second * (1 - LATE_LANE if demand.any_late else 1.0)
    ahead = _ahead(demand, slack_seconds + age_seconds) + more_ahead
    backlog = max(0.0, ahead - per_second * age_seconds) + demand.in_flight + 1 - pace.slots
    rivals = sorted(run_in for run_in, slack in demand.scheduled if slack <= slack_seconds)
    backlog = _left(backlog, rivals, run_in_seconds, per_second)
    later = [run_in for run_in in rivals if run_in > run_in_seconds]
    wait = 0.0
    for _ in range(MOST_STEPS):
        come = bisect_right(later, run_in_seconds + wait)
        come_lately = _arrivals(demand, wait, slack_seconds - run_in_seconds)
        longer = max(0.0, backlog + come + come_lately) / per_second
        if longer - wait < 0.01 or run_in_seconds + longer > max(slack_seconds, 0.0) + 86_400:
            return run_in_seconds + longer + DISPATCH_SECONDS
        wait = longer
    return run_in_seconds + wait + DISPATCH_SECONDS


def _ahead(demand: Demand, slack_seconds: float) -> float:
    """Waiting jobs with an earlier or equal deadline."""
    marks, places = demand.marks, demand.places
    place = bisect_right(marks, slack_seconds)
    counted = places[place - 1] if place else 0
    if place < len(marks):
        # Between two marks there may be up to all of the jobs of the second.
        return counted + (places[place] - counted - 1) / 2
    if not demand.cut or slack_seconds <= marks[-1]:
        return counted
    half = len(marks) // 2
    span = marks[-1] - marks[half]
    if span <= 0:
        return float("inf")
    density = (places[-1] - places[half]) / span
    return counted + density * (slack_seconds - marks[-1])


def _left(
    backlog: float, rivals: Sequence[float], run_in_seconds: float, per_second: float
) -> float:
    """What is left of *backlog* when the job becomes due; rivals add to it as they become due."""
    at = 0.0
    for run_in in rivals:
        if run_in > run_in_seconds:
            break
        backlog = _drained(backlog, per_second * (max(run_in, at) - at)) + 1
        at = max(run_in, at)
    return _drained(backlog, per_second * (run_in_seconds - at))


def _drained(backlog: float, done: float) -> float:
    return min(backlog, max(0.0, backlog - done)) if backlog > 0 else backlog


def _arrivals(demand: Demand, wait: float, slack_seconds: float) -> float:
    """Jobs that will come in the next *wait* seconds with a deadline before the job's."""
    if not demand.arriving_seconds:
        return 0.0
    most = min(wait, demand.arriving_seconds)
    times = (min(most, slack_seconds - tolerance) for tolerance in demand.tolerances)
    return sum(each for each in times if each > 0) / demand.arriving_seconds
