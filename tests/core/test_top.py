"""What `async-jobs top` shows of the figures, and how it fits into 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from async_jobs.cli.top_screen import drawn, plain_lines
from async_jobs.core.demand import EDGES_SECONDS, Step, bands
from async_jobs.core.overrides import ProcessSeen
from async_jobs.core.slo import Measure, Sums
from async_jobs.core.slo_report import Pulse, Reading, Terms, UseCaseSlo, report
from async_jobs.core.top import Sample, sample

NOW = datetime(2030, 1, 1, 12, 34, 56, tzinfo=UTC)
NOBODY_PAUSED: Mapping[str, str] = {}


def figures(name: str, *, late: int = 0, soon: int = 0, kept: int = 100) -> UseCaseSlo:
    """A use case with *late* late jobs, *soon* due within 10 s, *kept* % of its promises kept."""
    reading = Reading(
        window="1h",
        sums={(name, Measure.START, window): Sums(100, 100 - kept) for window in ("1h", "5m")},
        demand={name: [Step(0.0, late), Step(5.0, soon), Step(7_200.0, 2_000, cut=True)]},
        pulses={name: Pulse(use_case=name, in_flight=9, lateness_seconds=late, due_seconds=75.0)},
    )
    return report(name, reading, Terms(target=0.99, capacity=10, weight_of=lambda tenant: 1.0))


def process(role: str, seen_seconds: float = 1.0) -> ProcessSeen:
    return ProcessSeen(
        name=role,
        role=role,
        version="1",
        serves={},
        up_seconds=100.0,
        seen_seconds=seen_seconds,
        stop_asked=False,
    )


def seen(*found: UseCaseSlo, paused_by: Mapping[str, str] = NOBODY_PAUSED) -> Sample:
    processes = [process("scheduler"), process("worker"), process("worker", 3_600.0)]
    return sample(found, processes, paused_by=paused_by, at=NOW)


def on_screen(found: Sample | None, **more: Any) -> list[str]:
    console = Console(width=80, height=24, record=True, file=StringIO())
    console.print(drawn(found, NOW, **{"is_fresh": True, **more}))
    return console.export_text().splitlines()


def test_the_use_cases_in_danger_come_first() -> None:
    calm, late, burning = figures("calm"), figures("late", late=3), figures("burning", kept=50)

    found = seen(calm, late, burning)

    assert [each.use_case for each in found.use_cases] == ["burning", "late", "calm"]
    assert [each.alert for each in found.use_cases] == ["page", "none", "none"]


def test_what_waits_is_told_by_the_time_left_and_says_where_counting_ended() -> None:
    [one] = seen(figures("mail", late=3, soon=4)).use_cases

    assert [band.jobs for band in one.slack] == [3, 4, 0, 0, 0, 2_000]
    assert [band.cut for band in one.slack] == [False] * 5 + [True]
    assert (one.waiting, one.late, one.cut) == (2_007, 3, True)
    assert one.oldest_due_seconds == 75.0


def test_processes_that_went_without_a_word_are_counted_apart() -> None:
    found = seen()

    assert (found.schedulers, found.workers, found.gone) == (1, 1, 1)


@pytest.mark.parametrize("edge", EDGES_SECONDS)
def test_every_step_of_a_demand_is_in_one_band(edge: float) -> None:
    assert sum(band.jobs for band in bands([Step(edge, 7)])) == 7


def test_it_fits_into_80_columns_with_every_figure_whole() -> None:
    lines = on_screen(seen(figures("message_labeling", late=120_000, soon=99_999)))
    text = "\n".join(lines)

    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in text
    for told in ("message_labeling", "221999+", "120000", "9 of 10", "75 s", "100.0%", "99999"):
        assert told in text, text
    assert "12:34:56 UTC  1 scheduler  1 worker  1 gone" in lines[0]


def test_a_name_that_is_too_long_is_cut_and_no_figure_is() -> None:
    lines = on_screen(seen(figures("a_use_case_with_quite_a_long_name_indeed")))

    cut = [line for line in lines if line.startswith("a_use_case_with") and "…" in line]
    assert len(cut) == 2
    assert all("2000+" in line for line in cut)


def test_a_paused_use_case_and_a_missing_scheduler_are_told() -> None:
    found = seen(figures("mail"), paused_by={"mail": "ada"})

    text = "\n".join(on_screen(replace(found, schedulers=0)))

    assert "paused" in text
    assert "0 schedulers" in text


def test_without_an_answer_the_last_sample_stays_with_a_warning() -> None:
    text = "\n".join(on_screen(seen(figures("mail")), is_fresh=False))

    assert "The database gives no answer; below: 12:34:56" in text
    assert "mail" in text
    assert "gives no answer" in "\n".join(on_screen(None, is_fresh=False))


def test_names_from_outside_are_no_markup() -> None:
    assert "[red]x[/red]" in "\n".join(on_screen(seen(figures("[red]x[/red]"))))


def test_a_plain_line_has_a_key_for_every_figure() -> None:
    first, last = plain_lines(seen(figures("mail", late=3, soon=4)), NOW)

    told = dict(part.split("=") for part in first.split())
    assert told == {
        "at": "2030-01-01T12:34:56Z",
        "use_case": "mail",
        "waiting": "2007+",
        "late": "3",
        "below_10s": "4",
        "below_1min": "0",
        "below_10min": "0",
        "below_1h": "0",
        "over_1h": "2000+",
        "in_flight": "9",
        "capacity": "10",
        "oldest_due": "75.0s",
        "kept_1h": "100.0%",
        "alert": "none",
        "paused": "no",
    }
    assert last == "at=2030-01-01T12:34:56Z schedulers=1 workers=1 gone=1"
