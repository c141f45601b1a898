"""What `async-jobs dev` makes of its command line and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from async_jobs.config import AsyncJobsConfig
from async_jobs.dev.options import (
    Options,
    TransportName,
    configured_queues,
    environment,
    queue_name,
)
from async_jobs.errors import ConfigError

DSN = "postgresql://postgres@127.0.0.1:5/postgres"
ENDPOINT = "http://127.0.0.1:9"
QUEUES = {"notifications": f"{ENDPOINT}/000000000000/notifications"}


def options(**given: object) -> Options:
    return Options(data_dir=Path("data"), **given)  # type: ignore[arg-type] # passed through


def made_of(env: dict[str, str], **given: object) -> dict[str, str]:
    return environment(env, options(**given), dsn=DSN, endpoint=ENDPOINT, queue_urls=QUEUES)


def test_the_processes_can_use_the_environment() -> None:
    config = AsyncJobsConfig.from_env(made_of({}))

    assert config.db_dsn == DSN
    assert config.handlers_module == "async_jobs.dev.handlers"
    assert config.use_cases["notifications"].sqs_queue_url == QUEUES["notifications"]


def test_a_queue_of_the_users_is_never_used_by_accident() -> None:
    real = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"
    env = made_of({"ASYNC_JOBS_SQS_QUEUE_ORDERS": real})

    assert real not in env.values()


def test_credentials_of_the_users_never_reach_our_server() -> None:
    env = made_of(
        {"AWS_SECRET_ACCESS_KEY": "real", "AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "t"}
    )

    assert env["AWS_SECRET_ACCESS_KEY"] == "local"
    assert not env.keys() & {"AWS_PROFILE", "AWS_SESSION_TOKEN"}


def test_credentials_for_a_given_endpoint_are_kept() -> None:
    env = made_of({"AWS_SECRET_ACCESS_KEY": "theirs"}, sqs_endpoint=ENDPOINT)

    assert env["AWS_SECRET_ACCESS_KEY"] == "theirs"
    assert env["AWS_ENDPOINT_URL_SQS"] == ENDPOINT


def test_a_proxy_does_not_get_what_is_said_to_this_machine() -> None:
    env = made_of({"HTTP_PROXY": "http://proxy.example", "NO_PROXY": "intranet.example"})

    assert env["NO_PROXY"] == "127.0.0.1,localhost,intranet.example"


def test_without_sqs_the_processes_hear_of_no_queue() -> None:
    chosen = options(transport=TransportName.POSTGRES)
    env = environment(
        {"ASYNC_JOBS_SQS_QUEUE_NOTIFICATIONS": QUEUES["notifications"]},
        chosen,
        dsn=DSN,
        endpoint=None,
        queue_urls={},
    )

    assert not any(
        use_case.uses_sqs for use_case in AsyncJobsConfig.from_env(env).use_cases.values()
    )


def test_every_configured_use_case_has_a_queue() -> None:
    env = {"ASYNC_JOBS_REPORTS_MAX_CONCURRENT": "3"}

    assert configured_queues(options(), env).keys() == {
        "notifications",
        "message_labeling",
        "reports",
    }


def test_a_faulty_setting_is_told_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="ASYNC_JOBS_WORKER_CONCURRENCY"):
        configured_queues(options(), {"ASYNC_JOBS_WORKER_CONCURRENCY": "many"})


@pytest.mark.parametrize(
    ("use_case", "url", "name"),
    [
        ("message_labeling", None, "message-labeling"),
        ("notifications", "https://sqs.us-east-1.amazonaws.com/123456789012/mail", "mail"),
    ],
)
def test_a_local_queue_is_called_like_the_real_one(
    use_case: str, url: str | None, name: str
) -> None:
    assert queue_name(use_case, url) == name


def test_the_demo_brings_its_own_handlers() -> None:
    assert options(demo=True, handlers="mine").handlers_module == "examples.handlers"
