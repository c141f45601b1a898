"""What fails is told once, and a worker in good health says nothing."""

from __future__ import annotations

import pytest
from moving_parts import started_job
from store.factories import RETRIED, SUCCEEDED

from async_jobs.core.endings import Count, Endings, FlowKey, Sign
from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import Outcome
from async_jobs.errors import StoreUnavailable
from async_jobs.models import JobStatus
from async_jobs.worker.reporter import EVERY_SECONDS, UNTIL_WOKEN_SECONDS, Reporter

from .conftest import FakeDesk

MAIL = FlowKey("mail", "acme", "send")
WORKS = Outcome(move=Move.SUCCEED, status=JobStatus.SUCCEEDED, sign=Sign.WORKS)
FAILS = Outcome(move=Move.RETRY, status=JobStatus.PENDING, sign=Sign.FAILS)
PRESSED = Outcome(move=Move.SNOOZE, status=JobStatus.PENDING, sign=Sign.PRESSED)


async def test_an_idle_worker_sends_no_statement(desk: FakeDesk) -> None:
    await Reporter(desk).tick()

    assert desk.reports == []


async def test_a_reporter_sleeps_until_something_ends_and_then_keeps_its_pace(
    desk: FakeDesk,
) -> None:
    woken: list[str] = []
    reporter = Reporter(desk, lambda: woken.append("woken"))
    asleep = await reporter.tick()
    for outcome in (FAILS, FAILS):
        reporter.count(started_job(), outcome)
    await reporter.tick()
    reporter.count(started_job(), FAILS)

    assert asleep == UNTIL_WOKEN_SECONDS
    assert woken == ["woken"] * 2
    assert 0.0 < await reporter.tick() <= EVERY_SECONDS
    assert desk.reports == [Endings({MAIL: Count(2, 2)})]


async def test_outcomes_that_say_nothing_about_a_flow_are_not_counted(desk: FakeDesk) -> None:
    reporter = Reporter(desk)
    for outcome in (SUCCEEDED, RETRIED):
        reporter.count(started_job(), outcome)

    await reporter.tick()

    assert desk.reports == []


async def test_failures_of_a_second_travel_in_one_statement(desk: FakeDesk) -> None:
    reporter = Reporter(desk)
    for outcome in (WORKS, FAILS, FAILS):
        reporter.count(started_job(), outcome)

    await reporter.tick()
    await reporter.tick()

    assert desk.reports == [Endings({MAIL: Count(3, 2)})]
    assert desk.hints == []


async def test_schedulers_are_woken_for_backpressure_and_for_a_probe_that_works(
    desk: FakeDesk,
) -> None:
    reporter = Reporter(desk)
    reporter.count(started_job(probe=True), WORKS)
    reporter.count(started_job(use_case="push"), PRESSED)

    await reporter.tick()

    assert desk.hints == ["mail", "push"]


async def test_a_report_that_did_not_arrive_is_sent_again(desk: FakeDesk) -> None:
    reporter = Reporter(desk)
    reporter.count(started_job(), FAILS)
    desk.away = True
    with pytest.raises(StoreUnavailable):
        await reporter.tick()
    desk.away = False
    reporter.count(started_job(), WORKS)

    await reporter.tick()

    assert desk.reports == [Endings({MAIL: Count(2, 1)})]
