"""What a simulation is fed with: one arrival for each job, from a CSV or a workload. Pure.

The CSV is what `async-jobs simulate --export` writes and `--trace` reads. Its
first line names the columns, in any order; others are ignored. A fault is told with its
line and column, never with what stands there. A file of millions of lines is read as it
comes: names are kept once, and nothing else of a line outlives it.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from async_jobs.core.acceptance import MAX_ATTEMPTS, MAX_PRIORITY
from async_jobs.errors import TraceError

DEFAULT_BACKOFF_SECONDS = 10.0
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
MOST_SECONDS = 100 * 366 * 86_400.0
FARTHEST_RUN_AT = 1e11
"""In seconds: beyond the year 5000. Milliseconds since 1970 are more."""

_TIME_NEEDED = "must be a number of seconds, or a time like 2026-03-01T08:00:00Z"
_NOT_SECONDS = (
    "is too far from 0 for seconds: divide milliseconds by 1,000 and microseconds by 1,000,000"
)
_SECONDS_NEEDED = f"must be a number of seconds, from 0 to {MOST_SECONDS:.0f} (100 years)"
_MISSING = "is missing: the first line must name the columns, with commas between them"
_TOO_MANY_CELLS = (
    "has no name in the first line: put text that has commas of its own between double quotes"
)
_NOT_CSV = "the line is not CSV: is a double quote left open, or a cell longer than 128 KiB?"
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
    for number, each in enumerate(arrivals):
        arrivals[number] = each._replace(run_at=each.run_at - began)
    jobs_of = Counter(each.tenant_id for each in arrivals)
    noisy = frozenset({min(jobs_of, key=lambda tenant: (-jobs_of[tenant], tenant))})
    trace = Workload(name=name, arrivals=arrivals, capacity=1, noisy=noisy)
    return replace(trace, capacity=trace.mean_slots)


def read_arrivals(lines: Iterable[str]) -> Iterator[Arrival]:
    """The jobs of a CSV, line by line; raises TraceError at the first that cannot be read."""
    rows = _rows(lines)
    _, names = next(rows, (1, []))
    columns = _columns(names)
    for number, cells in rows:
        if len(cells) > len(names):
            raise TraceError(number, str(len(names) + 1), _TOO_MANY_CELLS)
        yield _arrival(_Line(number, cells, columns))


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that has any, and the number of that line: a cell may hold several."""
    reader = csv.reader(lines)
    number = 1
    try:
        for cells in reader:
            if cells:
                yield number, cells
            number = reader.line_num + 1
    except csv.Error:
        raise TraceError(number, "1", _NOT_CSV) from None


def _columns(names: Sequence[str]) -> dict[str, int]:
    """Where each column stands that is known here."""
    names = [name.strip() for name in names]
    for name, times in Counter(names).items():
        if name in COLUMNS and times > 1:
            raise TraceError(1, name, f"stands there {times} times: name it once")
    for name in REQUIRED:
        if name not in names:
            raise TraceError(1, name, _MISSING)
    return {name: names.index(name) for name in COLUMNS if name in names}


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


class _Line(NamedTuple):
    """The cells of one line; the text of a column that is missing is empty."""

    number: int
    cells: Sequence[str]
    columns: Mapping[str, int]

    def get(self, column: str) -> str:
        place = self.columns.get(column)
        return "" if place is None or place >= len(self.cells) else self.cells[place].strip()


def _arrival(line: _Line) -> Arrival:
    return Arrival(
        run_at=_time(line),
        tenant_id=_name(line, "tenant_id"),
        type=_name(line, "type", default="job"),
        run_seconds=_seconds(line, "run_seconds"),
        delay_tolerance_seconds=_seconds(line, "delay_tolerance_seconds"),
        priority=_whole(line, "priority", default=0, least=-MAX_PRIORITY, most=MAX_PRIORITY),
        failing_attempts=_whole(line, "failing_attempts", default=0, least=0, most=MAX_ATTEMPTS),
        max_attempts=_whole(line, "max_attempts", default=3, least=1, most=MAX_ATTEMPTS),
    )


def _text(line: _Line, column: str) -> str:
    if not (text := line.get(column)):
        raise TraceError(line.number, column, "is empty: a value is needed")
    return text


def _name(line: _Line, column: str, default: str = "") -> str:
    text = line.get(column) or default or _text(line, column)
    if "\0" in text:
        raise TraceError(line.number, column, "holds a NUL character: take it out")
    return sys.intern(text)


def _time(line: _Line) -> float:
    text = _text(line, "run_at")
    try:
        at = _finite(text)
    except ValueError:
        return _date(line, text)
    if abs(at) > FARTHEST_RUN_AT:
        raise TraceError(line.number, "run_at", _NOT_SECONDS)
    return at


def _date(line: _Line, text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(line.number, "run_at", _TIME_NEEDED) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _seconds(line: _Line, column: str) -> float:
    try:
        seconds = _finite(_text(line, column))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise TraceError(line.number, column, _SECONDS_NEEDED)
    return seconds


def _whole(line: _Line, column: str, *, default: int, least: int, most: int) -> int:
    if not (text := line.get(column)):
        return default
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise TraceError(line.number, column, f"must be a whole number from {least} to {most}")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number
