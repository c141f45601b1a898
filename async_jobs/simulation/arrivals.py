"""What a simulation is fed with: one arrival for each job, from a CSV or a workload. Pure.

The CSV is what `async-jobs simulate --export` writes and `--trace` reads. Its
first line names the columns, in any order; others are ignored. A fault is told with its
line and column, never with what stands there.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from async_jobs.errors import TraceError

DEFAULT_BACKOFF_SECONDS = 10.0
MOST_ATTEMPTS = 1_000
COLUMNS = {
    "run_at": "When the job is due: seconds from any start, or a time like 2026-03-01T08:00:00Z",
    "tenant_id": "Whose job it is",
    "type": "Its type; `job` without this column",
    "run_seconds": "How long each attempt runs",
    "delay_tolerance_seconds": "How long after `run_at` a start is still in time",
    "priority": "Higher goes first inside the shares of tenants; 0 without this column",
    "failing_attempts": "How many attempts fail before one succeeds; 0 without this column",
    "max_attempts": "After so many failed attempts the job is given up; 3 without this column",
}
_TIME_NEEDED = "must be a number of seconds, or a time like 2026-03-01T08:00:00Z"
REQUIRED = ("run_at", "tenant_id", "run_seconds", "delay_tolerance_seconds")


class Arrival(NamedTuple):
    """One job: when it is due (`run_at` in seconds), and what will come of it."""

    run_at: float
    tenant_id: str
    type: str
    run_seconds: float
    delay_tolerance_seconds: float
    priority: int = 0
    failing_attempts: int = 0
    max_attempts: int = 3

    @property
    def attempts(self) -> int:
        """How many times it runs in all."""
        return min(self.failing_attempts + 1, self.max_attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Arrivals in the order of `run_at`, and what belongs to them.

    `noisy` are the tenants whose burst or claim to urgency is the point: all others are quiet.
    `capacity` is what the figures are given for unless another one is asked for.
    """

    name: str
    arrivals: list[Arrival]
    capacity: int
    noisy: frozenset[str] = frozenset()
    backoff_seconds: float = DEFAULT_BACKOFF_SECONDS

    @property
    def work_seconds(self) -> float:
        """Seconds of slots that all attempts need together."""
        return sum(each.run_seconds * each.attempts for each in self.arrivals)

    @property
    def last_run_at(self) -> float:
        """When the last job is due; time starts at 0."""
        return self.arrivals[-1].run_at if self.arrivals else 0.0

    @property
    def mean_slots(self) -> int:
        """The slots that would do if the work came evenly."""
        return max(1, math.ceil(self.work_seconds / max(1.0, self.last_run_at)))


def from_trace(name: str, lines: Iterable[str]) -> Workload:
    """The workload that a CSV describes; time starts at its first job.

    Its capacity is the mean demand, and its noisy tenant the one with the most jobs.
    Raises TraceError.
    """
    arrivals = sorted(read_arrivals(lines))
    if not arrivals:
        raise TraceError(1, "run_at", "there is no job in it: one line for each is needed")
    began = arrivals[0].run_at
    arrivals = [each._replace(run_at=each.run_at - began) for each in arrivals]
    jobs_of = Counter(each.tenant_id for each in arrivals)
    noisy = frozenset({min(jobs_of, key=lambda tenant: (-jobs_of[tenant], tenant))})
    trace = Workload(name=name, arrivals=arrivals, capacity=1, noisy=noisy)
    return replace(trace, capacity=trace.mean_slots)


def read_arrivals(lines: Iterable[str]) -> Iterator[Arrival]:
    """The jobs of a CSV, line by line; raises TraceError at the first that cannot be read."""
    rows = csv.DictReader(lines)
    missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
    if missing:
        raise TraceError(1, missing[0], "is missing: the first line must name the columns")
    for row in rows:
        yield _arrival(row, rows.line_num)


def header() -> str:
    """The first line of a CSV."""
    return _csv([COLUMNS])


def lines_of(arrivals: Iterable[Arrival]) -> str:
    """One line of a CSV for each job."""
    return _csv(arrivals)


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _arrival(row: Mapping[str, str], line: int) -> Arrival:
    most_attempts = _whole(row, "max_attempts", line, default=3, least=1, most=MOST_ATTEMPTS)
    return Arrival(
        run_at=_time(row, line),
        tenant_id=_text(row, "tenant_id", line),
        type=row.get("type") or "job",
        run_seconds=_seconds(row, "run_seconds", line),
        delay_tolerance_seconds=_seconds(row, "delay_tolerance_seconds", line),
        priority=_whole(row, "priority", line, default=0, least=-32_768, most=32_767),
        failing_attempts=_whole(
            row, "failing_attempts", line, default=0, least=0, most=MOST_ATTEMPTS
        ),
        max_attempts=most_attempts,
    )


def _text(row: Mapping[str, str], column: str, line: int) -> str:
    if not (text := row.get(column)):
        raise TraceError(line, column, "is empty: a value is needed")
    return text


def _time(row: Mapping[str, str], line: int) -> float:
    text = _text(row, "run_at", line)
    try:
        return _finite(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(line, "run_at", _TIME_NEEDED) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _seconds(row: Mapping[str, str], column: str, line: int) -> float:
    try:
        seconds = _finite(_text(row, column, line))
    except ValueError:
        seconds = -1.0
    if seconds < 0:
        raise TraceError(line, column, "must be a number of seconds, 0 or more")
    return seconds


def _whole(
    row: Mapping[str, str], column: str, line: int, *, default: int, least: int, most: int
) -> int:
    text = row.get(column)
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise TraceError(line, column, f"must be a whole number from {least} to {most}")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number
