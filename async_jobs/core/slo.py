"""Promises kept and broken: histograms of slack, the error budget, fairness. Pure.

A promise is kept if the job's first attempt started at or before the deadline that was first
promised. What is measured, each by use case, and by tenant if that is asked for:

    lease      slack ÷ tolerance when a job was leased, each time it was
    start      the same when its first attempt started: here promises are kept or broken
    end        the same when it finished
    lateness   seconds after the deadline, of the first starts that were late
    run        seconds an attempt ran: its mean turns waiting jobs into slots

Slack is the time left until the deadline. Divided by the delay tolerance it compares a login
code with a report: 1 is a job that has just become due, 0 its deadline, -1 twice its tolerance.
A tolerance of 0 leaves nothing to divide by: in time counts as 1, late as minus infinity.

The error budget and its burn rate are those of Google's Site Reliability Workbook, chapter 5,
"Alerting on SLOs": with a target of 99 % one promise in a hundred may be broken; a burn rate of
1 uses that up in exactly the period, one of 14.4 a fiftieth of it in an hour.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

EVERY_TENANT = ""
"""The tenant of rows that count everybody's jobs."""

RATIO_BOUNDS = (-1.0, -0.1, 0.0, 0.2, 0.5, 1.0)
SECONDS_BOUNDS = (0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0)
BUCKETS = len(RATIO_BOUNDS) + 1
LATE_BUCKETS = 1 + RATIO_BOUNDS.index(0.0)

MINUTE_SECONDS = 60
HOUR_SECONDS = 3_600
DAY_SECONDS = 86_400
PERIOD_SECONDS = 30 * DAY_SECONDS
"""The period of the error budget, and how long rows of an hour are kept."""
MINUTES_KEPT_SECONDS = 6 * HOUR_SECONDS + 600

WINDOWS = {
    "5m": 300,
    "30m": 1_800,
    "1h": HOUR_SECONDS,
    "6h": 6 * HOUR_SECONDS,
    "1d": DAY_SECONDS,
    "3d": 3 * DAY_SECONDS,
    "30d": PERIOD_SECONDS,
}
"""Name and seconds of what is summed; up to six hours from rows of a minute, then of an hour."""
BURN_WINDOWS = ("5m", "1h", "6h", "3d")

MOST_TENANTS = 200


class Measure(StrEnum):
    """What is counted."""

    LEASE = "lease"
    START = "start"
    END = "end"
    LATENESS = "lateness"
    RUN = "run"

    @property
    def bounds(self) -> tuple[float, ...]:
        """The lower bounds of every bucket but the first."""
        in_seconds = self in (Measure.LATENESS, Measure.RUN)
        return SECONDS_BOUNDS if in_seconds else RATIO_BOUNDS


class Alert(StrEnum):
    """How soon somebody has to look."""

    NONE = "none"
    TICKET = "ticket"
    PAGE = "page"


_ALERTS = (
    (Alert.PAGE, 14.4, ("1h", "5m")),
    (Alert.PAGE, 6.0, ("6h", "30m")),
    (Alert.TICKET, 1.0, ("3d", "6h")),
)
"""The workbook's table: the long window says that it matters, the short one that it goes on."""


class Key(NamedTuple):
    """Whose counts they are, and of what."""

    use_case: str
    tenant_id: str
    measure: Measure


class Slack(NamedTuple):
    """The slack of one job and what it is measured by, both in seconds."""

    tenant_id: str
    slack_seconds: float
    tolerance_seconds: float


@dataclass(slots=True)
class Histogram:
    """Counts by bucket; a value equal to a bound counts above it. `late`: values below 0 slack."""

    total: int = 0
    late: int = 0
    sum_seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)


def slack_ratio(slack_seconds: float, tolerance_seconds: float) -> float:
    """Slack as a part of the tolerance: at most 1, negative when late."""
    if tolerance_seconds > 0:
        return slack_seconds / tolerance_seconds
    return 1.0 if slack_seconds >= 0 else -math.inf


class SloRecord:
    """What one process has counted and not written yet.

    At most `MOST_TENANTS` by themselves: the jobs of a tenant beyond that are counted among all.
    This is on the way of every job, so a count is one look-up, one bisection and two additions.
    """

    def __init__(self, *, by_tenant: bool = False) -> None:
        self._by_tenant = by_tenant
        self._everybody: dict[str, _Tallies] = {}
        self._tenants: dict[tuple[str, str], _Tallies] = {}

    def leased(self, use_case: str, slacks: Iterable[Slack]) -> None:
        """Jobs were leased with so much slack."""
        for slack in slacks:
            for tallies in self._tallies(use_case, slack.tenant_id):
                tallies[_LEASE].count_slack(slack)

    def started(self, use_case: str, slack: Slack) -> None:
        """A job's first attempt started with so much slack, or never will: kept or broken."""
        for tallies in self._tallies(use_case, slack.tenant_id):
            tallies[_START].count_slack(slack)
            if slack.slack_seconds < 0:
                tallies[_LATENESS].count_seconds(-slack.slack_seconds)

    def ended(
        self, use_case: str, slack: Slack, *, ran_seconds: float | None, finished: bool
    ) -> None:
        """An attempt ran so long, if one ran; if the job has *finished*, with so much slack."""
        for tallies in self._tallies(use_case, slack.tenant_id):
            if ran_seconds is not None:
                tallies[_RUN].count_seconds(ran_seconds)
            if finished:
                tallies[_END].count_slack(slack)

    def take(self) -> dict[Key, Histogram]:
        """Take out what is to be written; nothing if nothing was counted."""
        everybody, self._everybody = self._everybody, {}
        tenants, self._tenants = self._tenants, {}
        of_all = {(use_case, EVERY_TENANT): tallies for use_case, tallies in everybody.items()}
        return {
            Key(use_case, tenant_id, measure): tally.histogram(measure)
            for (use_case, tenant_id), tallies in (of_all | tenants).items()
            for measure, tally in zip(Measure, tallies, strict=True)
            if tally.sum_seconds or any(tally.buckets)
        }

    def put_back(self, counts: Mapping[Key, Histogram]) -> None:
        """*counts* could not be written; they are written with what comes next."""
        for (use_case, tenant_id, measure), histogram in counts.items():
            if tenant_id == EVERY_TENANT:
                tallies = self._everybody.setdefault(use_case, _no_tallies())
            elif (use_case, tenant_id) in self._tenants or len(self._tenants) < MOST_TENANTS:
                tallies = self._tenants.setdefault((use_case, tenant_id), _no_tallies())
            else:
                continue
            tallies[_POSITIONS[measure]].add(histogram)

    def _tallies(self, use_case: str, tenant_id: str) -> tuple[_Tallies, ...]:
        everybody = self._everybody.get(use_case)
        if everybody is None:
            everybody = self._everybody[use_case] = _no_tallies()
        if not self._by_tenant:
            return (everybody,)
        tenant = self._tenants.get((use_case, tenant_id))
        if tenant is None:
            if len(self._tenants) >= MOST_TENANTS:
                return (everybody,)
            tenant = self._tenants[use_case, tenant_id] = _no_tallies()
        return (everybody, tenant)


@dataclass(slots=True)
class _Tally:
    """A histogram in the making: totals follow from the buckets when it is written."""

    sum_seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def count_slack(self, slack: Slack) -> None:
        _, seconds, tolerance_seconds = slack
        self.sum_seconds += seconds
        ratio = seconds / tolerance_seconds if tolerance_seconds > 0 else slack_ratio(seconds, 0.0)
        self.buckets[bisect_right(RATIO_BOUNDS, ratio)] += 1

    def count_seconds(self, seconds: float) -> None:
        self.sum_seconds += seconds
        self.buckets[bisect_right(SECONDS_BOUNDS, seconds)] += 1

    def add(self, histogram: Histogram) -> None:
        self.sum_seconds += histogram.sum_seconds
        pairs = zip(self.buckets, histogram.buckets, strict=True)
        self.buckets = [ours + theirs for ours, theirs in pairs]

    def histogram(self, measure: Measure) -> Histogram:
        late = sum(self.buckets[:LATE_BUCKETS]) if measure.bounds is RATIO_BOUNDS else 0
        return Histogram(sum(self.buckets), late, self.sum_seconds, self.buckets)


_Tallies = list[_Tally]
_LEASE, _START, _END, _LATENESS, _RUN = range(len(Measure))
_POSITIONS = {measure: position for position, measure in enumerate(Measure)}


def _no_tallies() -> _Tallies:
    return [_Tally() for _ in Measure]


class Sums(NamedTuple):
    """What a measure adds up to in a window."""

    total: int = 0
    late: int = 0
    sum_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Promises:
    """First starts in a window, and how many of them were late."""

    started: int = 0
    late: int = 0

    @property
    def kept_share(self) -> float | None:
        """The share that started in time, from 0 to 1; None if nothing started."""
        return 1.0 - self.late / self.started if self.started else None

    def burn_rate(self, target: float) -> float:
        """How many times faster than allowed promises are broken; 0 if nothing started."""
        return self.late / self.started / (1.0 - target) if self.started else 0.0

    def budget_left(self, target: float) -> float:
        """The part of the error budget that is left: 1 untouched, 0 used up, negative overspent."""
        return 1.0 - self.burn_rate(target)


def alert_for(burn_rates: Mapping[str, float]) -> Alert:
    """What the burn rates by window call for; both windows of a rule must burn."""
    for alert, threshold, windows in _ALERTS:
        if all(burn_rates.get(window, 0.0) >= threshold for window in windows):
            return alert
    return Alert.NONE


def jain_index(values: Iterable[float]) -> float | None:
    """Jain's fairness index: 1 if all get the same, 1/n if one of n gets all; None for nobody.

    Jain, Chiu and Hawe, "A Quantitative Measure of Fairness" (1984).
    """
    given = list(values)
    squares = sum(value * value for value in given)
    return sum(given) ** 2 / (len(given) * squares) if squares else None


def span_for(window_seconds: int) -> int:
    """The length of the rows that a window is summed from, in seconds."""
    return MINUTE_SECONDS if window_seconds <= 6 * HOUR_SECONDS else HOUR_SECONDS


def bucket_labels(bounds: Sequence[float]) -> list[str]:
    """`<-1`, `-1..-0.1`, ..., `>=1`: one for each bucket."""
    between = [f"{low:g}..{high:g}" for low, high in pairwise(bounds)]
    return [f"<{bounds[0]:g}", *between, f">={bounds[-1]:g}"]
