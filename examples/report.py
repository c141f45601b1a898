"""What the demo shows: jobs as the API tells them, counted and laid out. Pure.

`Figures.of(jobs)` counts; the rest turns figures into lines and tables. Every
figure comes from the jobs' own rows. `demo` asks the API and prints.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any, Protocol
from uuid import UUID

from rich import box
from rich.table import Table

FINISHED = ("succeeded", "dead", "cancelled")
SHOWN = ("scheduled", "waiting", "running", *FINISHED)


class SeenJob(Protocol):
    """The fields of a job that the demo looks at."""

    @property
    def id(self) -> UUID: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def use_case(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def run_at(self) -> datetime: ...
    @property
    def deadline_at(self) -> datetime: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def result(self) -> Any: ...
    @property
    def last_error(self) -> Any: ...


@dataclass
class Figures:
    """Counts over some jobs. A job that is tried again counts with its last start."""

    jobs: int = 0
    attempts: int = 0
    states: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    waits_seconds: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, jobs: Iterable[SeenJob], *, now: datetime) -> Figures:
        """Count *jobs*; *now* tells what is scheduled from what already waits."""
        figures = cls()
        for job in jobs:
            figures._add(job, now)
        return figures

    @property
    def finished(self) -> int:
        return sum(self.states[state] for state in FINISHED)

    @property
    def started(self) -> int:
        return len(self.waits_seconds)

    def deadlines(self) -> str:
        """The share of the started jobs that started in time, never rounded up."""
        if not self.started:
            return "-"
        return f"{self.kept * 1000 // self.started / 10:.1f}%"

    def wait(self, share: float) -> str:
        """Milliseconds from `run_at` to the start that *share* of the jobs did not exceed."""
        waits = sorted(self.waits_seconds)
        if not waits:
            return "-"
        return f"{waits[max(0, ceil(share * len(waits)) - 1)] * 1000:,.0f}"

    def _add(self, job: SeenJob, now: datetime) -> None:
        self.jobs += 1
        self.attempts += job.attempts
        self.states[state_of(job, now)] += 1
        # A pending job's start belongs to an attempt that is over, its run_at to the next one.
        if job.started_at is not None and job.status != "pending":
            self.kept += job.started_at <= job.deadline_at
            self.waits_seconds.append((job.started_at - job.run_at).total_seconds())


def state_of(job: SeenJob, now: datetime) -> str:
    """The status, with pending told apart into scheduled and waiting."""
    if job.status != "pending":
        return str(job.status)
    return "scheduled" if job.run_at > now else "waiting"


def progress_line(figures: Figures, *, sent: int, arrivals: int, seconds: float) -> str:
    """One line on how far the run is."""
    states = " ".join(
        f"{state} {figures.states[state]}" for state in SHOWN if figures.states[state]
    )
    return (
        f"{seconds:5.1f} s  sent {sent}/{arrivals}  {states or 'no jobs yet'}  "
        f"deadlines kept {figures.deadlines()}"
    )


def progress_table(jobs: Sequence[SeenJob], title: str, *, now: datetime) -> Table:
    """Jobs by status for each use case, for the live view."""
    shown = _occurring(SHOWN, jobs)
    table = _table(title, "use case", (*shown, "deadlines\nkept", "p95 ms"))
    for name, figures in _by(jobs, lambda job: job.use_case, now):
        states = [str(figures.states[state]) for state in shown]
        table.add_row(name, *states, figures.deadlines(), figures.wait(0.95))
    return table


def summary_table(jobs: Sequence[SeenJob], *, now: datetime) -> Table:
    """The outcome of the run, by use case, by tenant and in total."""
    outcomes = _occurring(FINISHED, jobs)
    columns = ("jobs", *outcomes, "attempts", "deadlines\nmet", "p50 ms", "p95 ms", "p99 ms")
    table = _table("What became of the jobs", "", columns)
    for kind in (lambda job: job.use_case, lambda job: job.tenant_id, lambda _: "all"):
        for name, figures in _by(jobs, kind, now):
            table.add_row(name, *_cells(figures, outcomes))
        table.add_section()
    table.caption = "p50, p95, p99: from run_at to the start, of each job's last attempt"
    table.caption_justify = "left"
    return table


def _occurring(states: Sequence[str], jobs: Sequence[SeenJob]) -> list[str]:
    """*states* without cancelled, unless there is such a job: it takes much room."""
    found = any(job.status == "cancelled" for job in jobs)
    return [state for state in states if found or state != "cancelled"]


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    """A table that fits into 80 columns with the figures of a usual run."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def reasons(jobs: Iterable[SeenJob]) -> list[str]:
    """Why jobs are dead, the most frequent reason first."""
    counted = Counter(_reason(job) for job in jobs if job.status == "dead")
    return [f"{count} dead: {reason}" for reason, count in counted.most_common()]


def letters(jobs: Iterable[SeenJob]) -> int:
    """How many jobs say that they delivered a letter."""
    return sum(
        job.status == "succeeded" and isinstance(job.result, dict) and "delivered" in job.result
        for job in jobs
    )


def _by(
    jobs: Sequence[SeenJob], key: Callable[[SeenJob], str], now: datetime
) -> list[tuple[str, Figures]]:
    groups: dict[str, list[SeenJob]] = defaultdict(list)
    for job in jobs:
        groups[key(job)].append(job)
    return [(name, Figures.of(groups[name], now=now)) for name in sorted(groups)]


def _cells(figures: Figures, outcomes: Sequence[str]) -> list[str]:
    counts = [str(figures.states[state]) for state in outcomes]
    waits = [figures.wait(share) for share in (0.5, 0.95, 0.99)]
    return [str(figures.jobs), *counts, str(figures.attempts), figures.deadlines(), *waits]


def _reason(job: SeenJob) -> str:
    error = job.last_error if isinstance(job.last_error, dict) else {}
    return f"{error.get('type', 'unknown')}: {error.get('message', '')}"
