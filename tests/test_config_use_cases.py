"""Use cases in the configuration: their names, their queues, the worker's queue."""

from __future__ import annotations

import pytest
from config_environment import DSN, URL, environment, problem, problems, read

from async_jobs.config import AsyncJobsConfig, UseCaseConfig
from async_jobs.errors import ConfigError


def test_the_two_described_use_cases_always_exist() -> None:
    use_cases = read(SQS_QUEUE_MAILS="https://sqs/1/mails").use_cases

    assert list(use_cases) == ["notifications", "message_labeling", "mails"]
    assert UseCaseConfig(name="notifications") == use_cases["notifications"]
    assert (
        use_cases["notifications"].max_concurrent,
        use_cases["notifications"].default_delay_tolerance_seconds,
        use_cases["notifications"].sqs_queue_url,
    ) == (10, 60, None)


def test_any_use_case_is_configured_by_its_own_variables() -> None:
    config = read(
        SQS_QUEUE_ORDER_MAILS="https://sqs.eu-west-1.amazonaws.com/1/orders.fifo",
        ORDER_MAILS_MAX_CONCURRENT="3",
        ORDER_MAILS_DEFAULT_DELAY_TOLERANCE_SECONDS="0.5",
    )

    assert config.use_case("order_mails") == UseCaseConfig(
        name="order_mails",
        max_concurrent=3,
        default_delay_tolerance_seconds=0.5,
        sqs_queue_url="https://sqs.eu-west-1.amazonaws.com/1/orders.fifo",
    )


def test_one_variable_is_enough_to_configure_a_use_case() -> None:
    use_case = read(MAILS_MAX_CONCURRENT="2").use_case("mails")

    assert use_case is not None
    assert (use_case.queue, use_case.uses_sqs) == ("mails", False)


@pytest.mark.parametrize("spelling", ["message-labeling", "Message_Labeling", "MESSAGE-LABELING"])
def test_a_use_case_is_found_in_any_spelling(spelling: str) -> None:
    config = read()

    assert config.use_cases["message_labeling"] is config.use_case(spelling)


def test_an_unknown_use_case_is_none() -> None:
    assert read().use_case("mails") is None


@pytest.mark.parametrize("url", [URL, URL + "/"])
def test_the_queue_is_named_by_the_end_of_its_url(url: str) -> None:
    use_case = UseCaseConfig(name="mails", sqs_queue_url=url)

    assert (use_case.queue, use_case.uses_sqs) == ("notifications", True)


def test_use_cases_may_share_one_queue() -> None:
    config = read(SQS_QUEUE_MAILS="https://sqs/1/all", SQS_QUEUE_TEXTS="https://sqs/1/all")

    assert [each.name for each in config.queues()["all"]] == ["mails", "texts"]


def test_two_queues_of_one_name_are_a_problem() -> None:
    found = problem(SQS_QUEUE_MAILS="https://sqs/1/all", SQS_QUEUE_TEXTS="https://sqs/2/all")

    assert found.startswith("ASYNC_JOBS_SQS_QUEUE_MAILS, ASYNC_JOBS_SQS_QUEUE_TEXTS: two different")


def test_two_spellings_of_one_use_case_are_a_problem() -> None:
    found = problem(
        **{"SQS_QUEUE_ORDER-MAILS": "https://sqs/1/q", "ORDER_MAILS_MAX_CONCURRENT": "1"}
    )

    assert "the same use case" in found


@pytest.mark.parametrize(
    "name", ["SCHEDULER", "WORKER", "LEASE", "DB", "PER_TENANT", "SQS", "LOG", "worker"]
)
def test_a_use_case_cannot_be_named_like_a_setting(name: str) -> None:
    found = problem(**{f"{name}_MAX_CONCURRENT": "1"})

    assert f"ASYNC_JOBS_{name.upper()}_*: " in found
    assert "cannot name a use case" in found


def test_a_use_case_may_begin_with_a_reserved_word() -> None:
    assert read(WORKER_REPORTS_MAX_CONCURRENT="1").use_case("worker_reports") is not None


@pytest.mark.parametrize("name", ["", "a b", "ä", "../x", "x" * 81])
def test_a_use_case_needs_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigError, match="use case name"):
        UseCaseConfig(name=name)


def test_use_cases_given_by_hand_are_kept_under_their_own_name() -> None:
    mails = UseCaseConfig(name="Order-Mails")
    config = AsyncJobsConfig(db_dsn=DSN, use_cases={"order_mails": mails})

    assert ("order_mails", mails) == (mails.name, config.use_case("order-mails"))
    with pytest.raises(ConfigError, match="the key 'mails' holds"):
        AsyncJobsConfig(db_dsn=DSN, use_cases={"mails": mails})


def test_an_empty_queue_url_is_a_problem_with_its_remedy() -> None:
    found = problem(SQS_QUEUE_MAILS="")

    assert "ASYNC_JOBS_SQS_QUEUE_MAILS: is empty" in found
    assert "unset it (default: PostgreSQL itself is the transport)" in found


@pytest.mark.parametrize(
    "text",
    [
        "mails",
        "arn:aws:sqs:us-east-1:1:mails",
        "sqs.us-east-1.amazonaws.com/1/mails",
        "ftp://sqs/1/mails",
        "https://sqs/",
        "https:///1/mails",
        "https://[sqs/1/mails",
        "https://sqs:99999/1/mails",
        "https://user:hunter2@sqs/1/mails",
        "https://sqs/1/mails?x=1",
        "https://sqs/1/ma ils",
        "${QUEUE_URL}",
    ],
)
def test_what_is_no_queue_url_is_a_problem_that_does_not_repeat_it(text: str) -> None:
    found = problem(SQS_QUEUE_MAILS=text)

    assert "the whole URL of the queue" in found
    assert "a bare name is not enough" in found
    assert text == "mails" or text not in found


@pytest.mark.parametrize("host", ["localhost:9324", "127.0.0.9", "[::1]:80", "sqs.localhost"])
def test_http_is_fine_on_this_machine(host: str) -> None:
    assert read(SQS_QUEUE_MAILS=f"http://{host}/1/mails").use_case("mails") is not None


def test_http_elsewhere_is_a_problem() -> None:
    found = problem(SQS_QUEUE_MAILS="http://sqs.example/1/mails")

    assert "ASYNC_JOBS_SQS_QUEUE_MAILS: http would carry jobs unprotected" in found


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"])
def test_http_elsewhere_is_fine_with_an_endpoint_of_ones_own(variable: str) -> None:
    env = environment(SQS_QUEUE_MAILS="http://sqs.example/1/mails")

    config = AsyncJobsConfig.from_env(env | {variable: "http://sqs.example"})

    assert config.sqs_endpoint_url == "http://sqs.example"


def test_the_worker_queue_comes_from_queue_url_when_its_own_variable_is_unset() -> None:
    env = environment() | {"QUEUE_URL": URL}

    assert AsyncJobsConfig.from_env(env).worker_queue == (URL,)
    assert AsyncJobsConfig.from_env(env | environment(WORKER_QUEUE="mails")).worker_queue == (
        "mails",
    )


def test_a_blank_queue_url_is_none_of_our_business() -> None:
    assert AsyncJobsConfig.from_env(environment() | {"QUEUE_URL": ""}).worker_queue == ()


@pytest.mark.parametrize("variable", ["ASYNC_JOBS_WORKER_QUEUE", "QUEUE_URL"])
@pytest.mark.parametrize("text", ["${QUEUE_URL}", "mails, ${QUEUE_URL}"])
def test_a_shell_variable_nobody_replaced_is_refused(variable: str, text: str) -> None:
    (found,) = problems(environment() | {variable: text})

    assert "ASYNC_JOBS_WORKER_QUEUE or QUEUE_URL: " in found
    assert "runs no shell: set the variable QUEUE_URL and leave --queue out" in found


@pytest.mark.parametrize("text", ["mails,", ",", "mails,,texts"])
def test_a_list_of_queues_has_no_holes(text: str) -> None:
    assert "ASYNC_JOBS_WORKER_QUEUE" in problem(WORKER_QUEUE=text)
