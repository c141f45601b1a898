"""How often a process may hint: at once, but no storm."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from async_jobs.store import hints
from async_jobs.store.hints import BURST, COALESCE_SECONDS, MOST_PER_SECOND, Coalescer


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the monotonic clock says."""
    at = [1_000.0]
    monkeypatch.setattr(hints, "time", SimpleNamespace(monotonic=lambda: at[0]))
    return at


def through(coalescer: Coalescer, now: list[float], *, per_second: float, seconds: float) -> int:
    """How many of the hints of so long are let through."""
    count = 0
    for _ in range(round(per_second * seconds)):
        count += len(coalescer.let_through(["mail"]))
        now[0] += 1 / per_second
    return count


def test_each_topic_goes_once_in_a_moment(now: list[float]) -> None:
    coalescer = Coalescer()

    first = coalescer.let_through(["mail", "label", "mail"])
    soon = coalescer.let_through(["mail", "other"])
    now[0] += 2 * COALESCE_SECONDS
    later = coalescer.let_through(["mail"])

    assert sorted(first) == ["label", "mail"]
    assert (soon, later) == (["other"], ["mail"])


def test_jobs_that_come_a_hundred_a_second_have_a_hint_each(now: list[float]) -> None:
    assert through(Coalescer(), now, per_second=99, seconds=10) == 990


def test_no_rate_makes_more_hints_than_that_for_long(now: list[float]) -> None:
    let = through(Coalescer(), now, per_second=5_000, seconds=10)

    assert let <= BURST + 10 * MOST_PER_SECOND
    assert let >= 9 * MOST_PER_SECOND
