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

MOST_KEYS = 1_000


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
    buckets: list[int] = field(default_factory=lambda: [0] * (len(RATIO_BOUNDS) + 1))

    def add(self, other: Histogram) -> None:
        """Count what *other* has counted as well."""
        self.total += other.total
        self.late += other.late
        self.sum_seconds += other.sum_seconds
        self.buckets = [
            ours + theirs for ours, theirs in zip(self.buckets, other.buckets, strict=True)
        ]


def slack_ratio(slack_seconds: float, tolerance_seconds: float) -> float:
    """Slack as a part of the tolerance: at most 1, negative when late."""
    if tolerance_seconds > 0:
        return slack_seconds / tolerance_seconds
    return 1.0 if slack_seconds >= 0 else -math.inf


class SloRecord:
    """What one process has counted and not written yet.

    At most `MOST_KEYS` histograms: a tenant beyond that is counted among all, but not by itself.
    """

    def __init__(self, *, by_tenant: bool = False) -> None:
        self._by_tenant = by_tenant
        self._counts: dict[Key, Histogram] = {}

    def slack(self, measure: Measure, use_case: str, slack: Slack) -> None:
        """A job was leased, first started or finished with so much slack."""
        ratio = slack_ratio(slack.slack_seconds, slack.tolerance_seconds)
        bucket = bisect_right(RATIO_BOUNDS, ratio)
        late = slack.slack_seconds < 0
        for histogram in self._histograms(measure, use_case, slack.tenant_id):
            histogram.total += 1
            histogram.late += late
            histogram.sum_seconds += slack.slack_seconds
            histogram.buckets[bucket] += 1

    def seconds(self, measure: Measure, use_case: str, tenant_id: str, seconds: float) -> None:
        """A first start was so late, or an attempt ran so long."""
        bucket = bisect_right(SECONDS_BOUNDS, seconds)
        for histogram in self._histograms(measure, use_case, tenant_id):
            histogram.total += 1
            histogram.sum_seconds += seconds
            histogram.buckets[bucket] += 1

    def take(self) -> dict[Key, Histogram]:
        """Take out what is to be written; nothing if nothing was counted."""
        taken, self._counts = self._counts, {}
        return taken

    def put_back(self, counts: Mapping[Key, Histogram]) -> None:
        """*counts* could not be written; they are written with what comes next."""
        for key, histogram in counts.items():
            known = self._counts.get(key)
            if known is not None:
                known.add(histogram)
            elif key.tenant_id == EVERY_TENANT or len(self._counts) < MOST_KEYS:
                self._counts[key] = histogram

    def _histograms(self, measure: Measure, use_case: str, tenant_id: str) -> list[Histogram]:
        found = [self._histogram(Key(use_case, EVERY_TENANT, measure))]
        if self._by_tenant:
            key = Key(use_case, tenant_id, measure)
            if key in self._counts or len(self._counts) < MOST_KEYS:
                found.append(self._histogram(key))
        return found

    def _histogram(self, key: Key) -> Histogram:
        histogram = self._counts.get(key)
        if histogram is None:
            histogram = self._counts[key] = Histogram()
        return histogram


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
