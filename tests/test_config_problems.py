"""What is wrong with a configuration: every problem, all at once, and no secret in any."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest
from config_environment import DSN, problem, problems, read
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.config import AsyncJobsConfig, TenantQuota, UseCaseConfig
from async_jobs.errors import ConfigError

REFUSED = [
    *[
        (name, text)
        for name in (
            "SCHEDULER_INTERVAL_SECONDS",
            "WORKER_POLL_INTERVAL_SECONDS",
            "WORKER_VISIBILITY_TIMEOUT_SECONDS",
            "LEASE_DURATION_SECONDS",
            "DISPATCH_LEASE_SECONDS",
            "HEARTBEAT_INTERVAL_SECONDS",
        )
        for text in ("", " ", "abc", "-1", "0", "1e9", "nan", "inf", "1_0", "5s", "٣", "9" * 5000)
    ],
    *[
        (name, text)
        for name in (
            "WORKER_GRACE_SECONDS",
            "WORKER_LONG_POLL_SECONDS",
            "RETENTION_SECONDS",
            "NOTIFICATIONS_DEFAULT_DELAY_TOLERANCE_SECONDS",
        )
        for text in ("", "abc", "-0.1", "1e10", "nan", "-inf")
    ],
    *[
        (name, text)
        for name in (
            "WORKER_CONCURRENCY",
            "MAX_PAYLOAD_BYTES",
            "DB_POOL_MAX_SIZE",
            "NOTIFICATIONS_MAX_CONCURRENT",
            "MAILS_MAX_CONCURRENT",
        )
        for text in ("", "abc", "-1", "0", "1.5", "1e1", "1000000000", "9" * 5000)
    ],
    *[("HANDLERS_MODULE", text) for text in ("", "os;rm", "../x", "/x.py", "a..b", "a.class")],
    *[("DB_DSN", text) for text in ("", "  ", "localhost", "postgresql+psycopg://host/db")],
    *[("LOG_LEVEL", text) for text in ("", "LOUD")],
    *[("DB_PREPARED_STATEMENTS", text) for text in ("", "yes", "0")],
    *[("LOG_FORMAT", text) for text in ("", "xml")],
    ("WORKER_QUEUE", ""),
    ("WORKER_LONG_POLL_SECONDS", "20.1"),
]


@pytest.mark.parametrize(("variable", "text"), REFUSED)
def test_a_value_that_cannot_be_used_is_a_problem_naming_its_variable(
    variable: str, text: str
) -> None:
    found = problem(**{variable: text})

    assert found.startswith(f"ASYNC_JOBS_{variable}")
    assert ("is empty" if not text.strip() else "cannot be used") in found
    assert "; set it to " in found


@pytest.mark.parametrize(("variable", "text"), [each for each in REFUSED if len(each[1]) > 3])
def test_a_problem_does_not_repeat_the_value(variable: str, text: str) -> None:
    assert text not in problem(**{variable: text}).partition(":")[2]


def test_a_missing_dsn_is_a_problem() -> None:
    assert problems({})[0].startswith("ASYNC_JOBS_DB_DSN: is not set; set it to a PostgreSQL")


def test_all_problems_are_raised_at_once() -> None:
    found = problems(
        {
            "ASYNC_JOBS_LEASE_DURATION_SECONDS": "abc",
            "ASYNC_JOBS_WORKER_CONCURRENCY": "0",
            "ASYNC_JOBS_MAILS_MAX_CONCURRENT": "-1",
            "ASYNC_JOBS_SQS_QUEUE_MAILS": "mails",
            "ASYNC_JOBS_LEASE_MAX_CONCURRENT": "1",
            "ASYNC_JOBS_PER_TENANT_QUOTAS": '{"a": {"weight": -1}, "b": []}',
            "ASYNC_JOBS_SQS_QUEUE_TEXTS": "http://sqs.example/1/texts",
        }
    )

    named = sorted(each.partition(":")[0] for each in found)
    assert named == [
        "ASYNC_JOBS_DB_DSN",
        "ASYNC_JOBS_LEASE_*",
        "ASYNC_JOBS_LEASE_DURATION_SECONDS",
        "ASYNC_JOBS_MAILS_MAX_CONCURRENT",
        "ASYNC_JOBS_PER_TENANT_QUOTAS",
        "ASYNC_JOBS_PER_TENANT_QUOTAS",
        "ASYNC_JOBS_SQS_QUEUE_MAILS",
        "ASYNC_JOBS_SQS_QUEUE_TEXTS",
        "ASYNC_JOBS_WORKER_CONCURRENCY",
    ]


def test_a_lease_must_outlast_two_heartbeats() -> None:
    found = problem(LEASE_DURATION_SECONDS="3", HEARTBEAT_INTERVAL_SECONDS="1.6")

    assert found.startswith("ASYNC_JOBS_HEARTBEAT_INTERVAL_SECONDS: one missed heartbeat")


def test_an_unreadable_lease_is_not_compared_with_the_heartbeat() -> None:
    found = problem(LEASE_DURATION_SECONDS="abc", HEARTBEAT_INTERVAL_SECONDS="200")

    assert found.startswith("ASYNC_JOBS_LEASE_DURATION_SECONDS")


WRONG: list[Callable[[], object]] = [
    lambda: AsyncJobsConfig(db_dsn=""),
    lambda: AsyncJobsConfig(db_dsn=DSN, lease_duration_seconds=-1),
    lambda: AsyncJobsConfig(db_dsn=DSN, worker_concurrency=True),
    lambda: AsyncJobsConfig(db_dsn=DSN, lease_duration_seconds="3"),  # type: ignore[arg-type]  # wrong on purpose
    lambda: AsyncJobsConfig(db_dsn=DSN, worker_queue=("${QUEUE_URL}",)),
    lambda: replace(AsyncJobsConfig(db_dsn=DSN), retention_seconds=math.inf),
    lambda: UseCaseConfig(name="mails", max_concurrent=0),
    lambda: UseCaseConfig(name="mails", sqs_queue_url="mails"),
    lambda: TenantQuota(weight=-1),
]


@pytest.mark.parametrize("build", WRONG)
def test_what_is_built_by_hand_is_checked_too(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        build()


@given(st.floats(min_value=0.2, max_value=86_400))
def test_any_duration_within_its_bounds_is_read_exactly(value: float) -> None:
    assert value == read(LEASE_DURATION_SECONDS=repr(value)).lease_duration_seconds


@given(st.floats().filter(lambda value: not 0.1 <= value <= 86_400))
def test_no_duration_outside_its_bounds_is_read(value: float) -> None:
    assert problem(LEASE_DURATION_SECONDS=repr(value))


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_problem(text: str) -> None:
    try:
        value = read(LEASE_DURATION_SECONDS=text).lease_duration_seconds
    except ConfigError:
        return

    assert value == float(text)


def test_no_secret_is_shown_by_a_configuration() -> None:
    config = read(ENQUEUE_AUTH_TOKEN="tok-tok-tok")

    shown = f"{config!r} {config} {config.describe()}"
    assert "hunter2" not in shown
    assert "tok-tok-tok" not in shown


@pytest.mark.parametrize(
    "variables",
    [
        {"DB_DSN": "mysql://user:hunter2@db/jobs"},
        {"DB_DSN": DSN, "ENQUEUE_AUTH_TOKEN": "hunter2", "LOG_LEVEL": "hunter2"},
        {"SQS_QUEUE_MAILS": "https://user:hunter2@sqs/1/mails"},
        {"PER_TENANT_QUOTAS": "hunter2"},
        {"LEASE_DURATION_SECONDS": "hunter2"},
    ],
)
def test_no_secret_is_shown_by_an_error(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as raised:
        read(**variables)

    told = "".join(traceback.format_exception(raised.value))
    assert "hunter2" not in told
    assert raised.value.__context__ is None
