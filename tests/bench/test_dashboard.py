"""The benchmark of the dashboard asks for every page, and its verdict follows time and CPU."""

from __future__ import annotations

import pytest

from bench.dashboard import Page, pages, run, summary


@pytest.mark.slow
def test_every_page_is_measured_beside_few_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    run(2_000, rounds=2)

    told = capsys.readouterr().out
    assert "The dashboard beside 2,000 jobs" in told
    assert all(f"| {page.name} |" in told for page in pages(""))


@pytest.mark.parametrize(
    ("took_ms", "cpu_seconds", "every_seconds", "verdict"),
    [
        (199.0, 0.4, 5.0, "met"),
        (201.0, 0.4, 5.0, "missed"),
        (199.0, 0.6, 5.0, "missed"),
        (199.0, 0.6, None, "met"),
    ],
)
def test_a_page_may_take_200_ms_and_one_percent_of_a_core_if_left_open(
    took_ms: float, cpu_seconds: float, every_seconds: float | None, verdict: str
) -> None:
    page = Page("a page", "", every_seconds, [took_ms] * 10, cpu_seconds)

    [row] = summary([page], 100).rows

    assert row[-1] == verdict
