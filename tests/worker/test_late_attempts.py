"""A job that reaches the worker after its deadline: run, dropped, given up, or as code decides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moving_parts import Events, started_job

from async_jobs.core.lateness import LatenessPolicy
from async_jobs.core.lifecycle import Move
from async_jobs.core.outcome import Outcome
from async_jobs.errors import Bury, Cancel, RegistryError, Snooze
from async_jobs.models import JobContext, JobStatus, LateRetry, OnLate, StartedJob
from async_jobs.registry import JobRegistry
from async_jobs.telemetry.events import JobEndedLate, JobRetried
from async_jobs.telemetry.logs import log_event
from async_jobs.worker.attempt import Attempt

from .conftest import FakeEnqueuer, outcome_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MakeAttempt = Callable[..., Attempt]


def recorded(job: StartedJob, outcome: Outcome, told: Callable[[bool], None]) -> None:
    told(True)


@pytest.fixture
def make_attempt(registry: JobRegistry, enqueuer: FakeEnqueuer, events: Events) -> MakeAttempt:
    def make(policy: LatenessPolicy | None = None, *, late_by: float = 5.0, **job: Any) -> Attempt:
        """The attempt of a job that starts *late_by* seconds after its deadline."""
        deadline_at = NOW + timedelta(seconds=60)
        fields = {
            "run_at": NOW,
            "deadline_at": deadline_at,
            "started_at": deadline_at + timedelta(seconds=late_by),
        }
        return Attempt(
            started_job(**{**fields, **job}),
            registry,
            recorded,
            enqueuer=enqueuer,
            bus=events.bus,
            lateness=policy or LatenessPolicy(),
        )

    return make


@pytest.fixture
def ran(registry: JobRegistry) -> list[str]:
    """What ran: the handler of "send" adds its name."""
    ran: list[str] = []

    @registry.handler("send")
    def send(payload: dict[str, Any]) -> str:
        ran.append("send")
        return "sent"

    return ran


@pytest.mark.parametrize(
    ("on_late", "status"), [(OnLate.DROP, JobStatus.CANCELLED), (OnLate.DEAD, JobStatus.DEAD)]
)
async def test_a_late_job_is_ended_unrun_with_its_attempt_given_back(
    make_attempt: MakeAttempt, ran: list[str], events: Events, on_late: OnLate, status: JobStatus
) -> None:
    outcome = await outcome_of(make_attempt(LatenessPolicy(on_late=on_late)))

    assert outcome is not None
    assert (outcome.move, outcome.status, ran) == (Move.END_LATE, status, [])
    assert outcome.gives_attempt_back
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["late_by_seconds"]) == ("DeadlineMissed", 5.0)
    (event,) = events.of(JobEndedLate)
    assert (event.late_by_seconds, event.dead) == (5.0, on_late is OnLate.DEAD)


async def test_without_a_policy_a_late_job_runs(make_attempt: MakeAttempt, ran: list[str]) -> None:
    outcome = await outcome_of(make_attempt())

    assert outcome is not None
    assert (outcome.status, ran) == (JobStatus.SUCCEEDED, ["send"])


@pytest.mark.parametrize("late_by", [0.0, -0.001, -60.0])
async def test_a_job_that_starts_in_time_runs_whatever_the_policy(
    make_attempt: MakeAttempt, registry: JobRegistry, ran: list[str], late_by: float
) -> None:
    registry.on_missed("send")(lambda payload: "dead")

    outcome = await outcome_of(make_attempt(LatenessPolicy(on_late=OnLate.DROP), late_by=late_by))

    assert outcome is not None
    assert (outcome.status, ran) == (JobStatus.SUCCEEDED, ["send"])


@pytest.mark.parametrize("by", ["type", "use case"])
@pytest.mark.parametrize(
    ("decision", "status", "runs"),
    [
        (OnLate.RUN, JobStatus.SUCCEEDED, ["send"]),
        ("run", JobStatus.SUCCEEDED, ["send"]),
        (OnLate.DROP, JobStatus.CANCELLED, []),
        ("drop", JobStatus.CANCELLED, []),
        (OnLate.DEAD, JobStatus.DEAD, []),
        ("dead", JobStatus.DEAD, []),
    ],
)
async def test_code_decides_before_the_policy(
    make_attempt: MakeAttempt,
    registry: JobRegistry,
    ran: list[str],
    by: str,
    decision: str,
    status: JobStatus,
    runs: list[str],
) -> None:
    asked: list[float] = []

    async def decide(ctx: JobContext, payload: dict[str, Any]) -> str:
        asked.append(ctx.remaining())
        return decision

    registry.on_missed(**({"type": "send"} if by == "type" else {"use_case": "mail"}))(decide)
    policy = LatenessPolicy(on_late=OnLate.DEAD if status is not JobStatus.DEAD else OnLate.RUN)

    outcome = await outcome_of(make_attempt(policy))

    assert outcome is not None
    assert (outcome.status, ran) == (status, runs)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("error", "status", "gives_back"),
    [
        (Cancel("too late"), JobStatus.CANCELLED, False),
        (Bury("too late"), JobStatus.DEAD, False),
        (Snooze(30), JobStatus.PENDING, True),
        (ValueError("a fault of its own"), JobStatus.PENDING, False),
    ],
)
async def test_what_on_missed_raises_ends_the_attempt_as_if_the_handler_had_raised_it(
    make_attempt: MakeAttempt,
    registry: JobRegistry,
    ran: list[str],
    error: Exception,
    status: JobStatus,
    gives_back: bool,
) -> None:
    @registry.on_missed("send")
    def missed(ctx: JobContext, payload: dict[str, Any]) -> None:
        raise error

    outcome = await outcome_of(make_attempt())

    assert outcome is not None
    assert (outcome.status, outcome.gives_attempt_back, ran) == (status, gives_back, [])


@pytest.mark.parametrize("decision", [None, True, "cancelled", 1, object()])
async def test_no_decision_is_a_failure_that_says_which_decisions_there_are(
    make_attempt: MakeAttempt, registry: JobRegistry, ran: list[str], decision: object
) -> None:
    registry.on_missed("send")(lambda payload: decision)

    outcome = await outcome_of(make_attempt())

    assert outcome is not None
    assert (outcome.move, ran) == (Move.RETRY, [])
    assert outcome.error is not None
    assert "run, drop or dead" in outcome.error["message"]


async def test_what_is_registered_for_the_type_goes_before_that_for_the_use_case(
    make_attempt: MakeAttempt, registry: JobRegistry, ran: list[str]
) -> None:
    registry.on_missed(use_case="mail")(lambda payload: "dead")
    registry.on_missed("send")(lambda payload: "run")

    outcome = await outcome_of(make_attempt())

    assert outcome is not None
    assert (outcome.status, ran) == (JobStatus.SUCCEEDED, ["send"])


async def test_the_worker_passes_the_policy_for_late_retries_on(
    make_attempt: MakeAttempt, registry: JobRegistry, events: Events
) -> None:
    @registry.handler("send")
    def send(payload: dict[str, Any]) -> None:
        raise ValueError("boom")

    given_up = await outcome_of(make_attempt(LatenessPolicy(late_retry=LateRetry.GIVE_UP)))
    allowed = await outcome_of(make_attempt(LatenessPolicy(late_retry=LateRetry.ALLOW)))

    assert given_up is not None
    assert allowed is not None
    assert (given_up.status, allowed.status) == (JobStatus.DEAD, JobStatus.PENDING)
    (event,) = events.of(JobRetried)
    assert event.late_by_seconds == pytest.approx(45, abs=1)


async def test_a_late_retry_is_said_in_the_log(
    make_attempt: MakeAttempt,
    registry: JobRegistry,
    events: Events,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @registry.handler("send")
    def send(payload: dict[str, Any]) -> None:
        raise ValueError("boom")

    await outcome_of(make_attempt())
    log_event(events.of(JobRetried)[0])

    assert "s after the promised deadline" in caplog.text


def test_on_missed_is_for_one_type_or_one_use_case(registry: JobRegistry) -> None:
    for arguments in ({}, {"type": "send", "use_case": "mail"}, {"type": " "}, {"use_case": 3}):
        with pytest.raises(RegistryError):
            registry.on_missed(**arguments)  # type: ignore[arg-type] # what people get wrong


def test_two_functions_cannot_decide_about_one_type(registry: JobRegistry) -> None:
    registry.on_missed("send")(lambda payload: "run")

    with pytest.raises(RegistryError, match="already"):
        registry.on_missed("send")(lambda payload: "drop")


def test_a_use_case_is_meant_in_any_spelling(registry: JobRegistry) -> None:
    registry.on_missed(use_case="Order-Mails")(lambda payload: "run")

    assert registry.missed_for("send", "order_mails") is not None
    assert registry.missed_for("send", "mail") is None
