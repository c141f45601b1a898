"""How many slots it takes to keep the promises to the jobs that wait now. Pure.

The least constant speed that finishes all known work by its deadlines is the largest, over
every deadline d, of (work due by d) ÷ (time until d): the intensity of Yao, Demers and Shenker,
"A Scheduling Model for Reduced CPU Energy" (1995). Here work is slots × seconds, and a promise is
about the start: a job of s seconds that must start by d may finish by d + s. So

    required slots = max over d of (in flight + waiting jobs due by d) × s ÷ (d + s)

with s the mean run time. What is in flight holds its slots for a run each. What is late cannot be
kept any more and would ask for everything at once: it is to be started within `CATCH_UP_SECONDS`.
With nothing waiting, what is in flight is what is needed. Where it is known how fast jobs of each
tolerance t arrive, rate × (d - t) of them join the work due by d, and rate × s slots are the least.

The profile says how many jobs wait by time to deadline. It is read with bounded counts: a step
that reached the bound has at least so many, and then the slots are a least number too. Deadlines
are known to the end of their step only, so that the result can be too small by the ratio of two
edges (2.5 at most), never too large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EDGES_SECONDS = (
    0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0,
    3_600.0, 7_200.0, 14_400.0, 28_800.0, 86_400.0,
)  # fmt: skip
"""Where the steps of a profile end, in seconds from now; the first holds what is late."""
MOST_PER_STEP = 2_000
CATCH_UP_SECONDS = 60.0
ROUNDING = 1e-6
"""10.000000001 slots are 10: sums are inexact."""

BANDS = (
    (0.0, "late"),
    (10.0, "0-10 s"),
    (60.0, "10-60 s"),
    (600.0, "1-10 min"),
    (3_600.0, "10-60 min"),
    (math.inf, "over 1 h"),
)
"""Where the bands of slack end that people are shown, in seconds from now."""

Arrivals = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Step:
    """Waiting jobs whose deadline is before `until_seconds` from now and in no earlier step.

    `cut`: there are at least so many, counting stopped there.
    """

    until_seconds: float
    jobs: int
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """Waiting jobs by the time that is left for them; `cut` as for a step."""

    label: str
    jobs: int
    cut: bool


def bands(profile: Sequence[Step]) -> list[Band]:
    """The steps of *profile* in six bands, late jobs first."""
    found, after = [], -math.inf
    for until, label in BANDS:
        inside = [step for step in profile if after < step.until_seconds <= until]
        found.append(Band(label, sum(each.jobs for each in inside), any(e.cut for e in inside)))
        after = until
    return found


@dataclass(frozen=True, slots=True)
class Need:
    """Slots, and whether even more may be needed because counting was cut off."""

    slots: int
    at_least: bool = False


def required_slots(
    profile: Sequence[Step], *, mean_run_seconds: float, in_flight: int, arrivals: Arrivals = ()
) -> Need:
    """The least slots that start every waiting job of *profile* by its deadline.

    Also what goes on to arrive, if *arrivals* says so: (tolerance in seconds, jobs a second).
    """
    most = sum(per_second for _, per_second in arrivals) * mean_run_seconds
    if not any(step.jobs for step in profile):
        return Need(max(in_flight, math.ceil(most - ROUNDING)))
    waiting = 0
    for until_seconds, jobs in _deadlines(profile):
        waiting += jobs
        if waiting:
            coming = sum(rate * max(0.0, until_seconds - wait) for wait, rate in arrivals)
            work = (in_flight + waiting + coming) * mean_run_seconds
            most = max(most, work / (until_seconds + mean_run_seconds))
    return Need(max(1, math.ceil(most - ROUNDING)), any(step.cut for step in profile))


def _deadlines(profile: Sequence[Step]) -> list[tuple[float, int]]:
    """(seconds from now, jobs), in order; late jobs are due when they are to be caught up."""
    return sorted(
        (step.until_seconds if step.until_seconds > 0 else CATCH_UP_SECONDS, step.jobs)
        for step in profile
    )
