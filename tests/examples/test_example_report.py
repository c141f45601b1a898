"""The demo's figures: counted from the jobs, nothing guessed."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from async_jobs.models import new_job_id
from examples.report import (
    Figures,
    letters,
    progress_line,
    progress_table,
    reasons,
    summary_table,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Seen:
    """A job as the API tells it, due a minute ago unless said otherwise."""

    status: str = "succeeded"
    wait_seconds: float | None = 1.0
    tenant_id: str = "bakery"
    use_case: str = "notifications"
    attempts: int = 1
    run_at: datetime = NOW - timedelta(minutes=1)
    tolerance_seconds: float = 10.0
    result: Any = None
    last_error: Any = None
    id: UUID = field(default_factory=new_job_id)

    @property
    def deadline_at(self) -> datetime:
        return self.run_at + timedelta(seconds=self.tolerance_seconds)

    @property
    def started_at(self) -> datetime | None:
        if self.wait_seconds is None:
            return None
        return self.run_at + timedelta(seconds=self.wait_seconds)


def shown(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    return out.getvalue()


def test_a_start_within_the_tolerance_keeps_the_deadline_and_a_later_one_does_not() -> None:
    figures = Figures.of([Seen(wait_seconds=10.0), Seen(wait_seconds=10.1)], now=NOW)

    assert (figures.kept, figures.started) == (1, 2)
    assert figures.deadlines() == "50.0%"


def test_the_share_of_kept_deadlines_is_never_rounded_up() -> None:
    jobs = [Seen()] * 9_999 + [Seen(wait_seconds=11.0)]

    assert Figures.of(jobs, now=NOW).deadlines() == "99.9%"


def test_a_job_that_waits_for_its_next_attempt_counts_no_start() -> None:
    figures = Figures.of([Seen(status="pending", wait_seconds=-2.0, attempts=1)], now=NOW)

    assert (figures.started, figures.attempts) == (0, 1)
    assert figures.deadlines() == figures.wait(0.5) == "-"


def test_pending_is_told_apart_into_scheduled_and_waiting() -> None:
    later = Seen(status="pending", wait_seconds=None, run_at=NOW + timedelta(seconds=1))
    figures = Figures.of([later, Seen(status="pending", wait_seconds=None)], now=NOW)

    assert figures.states == {"scheduled": 1, "waiting": 1}


def test_waits_are_shown_as_the_value_that_a_share_of_the_jobs_did_not_exceed() -> None:
    figures = Figures.of([Seen(wait_seconds=number / 100) for number in range(1, 101)], now=NOW)

    assert [figures.wait(share) for share in (0.5, 0.95, 0.99)] == ["500", "950", "990"]
    assert Figures.of([Seen(wait_seconds=2.0)], now=NOW).wait(0.5) == "2,000"


def test_letters_are_counted_from_the_results_of_jobs_that_succeeded() -> None:
    jobs = [
        Seen(result={"delivered": "order"}),
        Seen(result={"label": "positive"}),
        Seen(status="dead", result=None),
    ]

    assert letters(jobs) == 1


def test_reasons_of_dead_jobs_come_most_frequent_first() -> None:
    full = {"type": "Retry", "message": "full"}
    jobs = [
        Seen(status="dead", last_error={"type": "Bury", "message": "refused"}),
        *[Seen(status="dead", last_error=full)] * 2,
        Seen(last_error=full),
    ]

    assert reasons(jobs) == ["2 dead: Retry: full", "1 dead: Bury: refused"]


def test_the_line_of_progress_tells_only_states_that_occur() -> None:
    figures = Figures.of([Seen(), Seen(status="running")], now=NOW)
    line = progress_line(figures, sent=2, arrivals=5, seconds=1.25)

    assert line == "  1.2 s  sent 2/5  running 1 succeeded 1  deadlines kept 100.0%"


def test_the_tables_have_a_row_for_each_use_case_each_tenant_and_all() -> None:
    jobs = [Seen(), Seen(use_case="message_labeling", tenant_id="megashop", wait_seconds=20.0)]
    summary = shown(summary_table(jobs, now=NOW))
    progress = shown(progress_table(jobs, "title", now=NOW))

    for name in ("notifications", "message_labeling", "bakery", "megashop", "all"):
        assert name in summary
    assert "50.0%" in summary
    assert "message_labeling" in progress
    assert "\N{HORIZONTAL ELLIPSIS}" not in summary + progress
