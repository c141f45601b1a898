"""The configuration: every variable, quotas, and where the values come from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from config_environment import DSN, URL, environment, problem, problems, read, warned
from typer import Typer
from typer.testing import CliRunner

from async_jobs.cli.config import config as config_command
from async_jobs.cli.config import settings_table
from async_jobs.config import AsyncJobsConfig, ConfigWarning, TenantQuota, UseCaseConfig
from async_jobs.errors import ConfigError

# variable, text, field, value
VARIABLES = [
    ("DB_DSN", " host=db dbname=jobs ", "db_dsn", "host=db dbname=jobs"),
    ("ENQUEUE_AUTH_TOKEN", "secret-token", "enqueue_auth_token", "secret-token"),
    ("ENQUEUE_AUTH_TOKEN", " ", "enqueue_auth_token", " "),
    ("SCHEDULER_INTERVAL_SECONDS", "0.2", "scheduler_interval_seconds", 0.2),
    ("WORKER_POLL_INTERVAL_SECONDS", "2", "worker_poll_interval_seconds", 2.0),
    ("WORKER_VISIBILITY_TIMEOUT_SECONDS", "30.5", "worker_visibility_timeout_seconds", 30.5),
    ("LEASE_DURATION_SECONDS", "3", "lease_duration_seconds", 3.0),
    ("DISPATCH_LEASE_SECONDS", "1.5", "dispatch_lease_seconds", 1.5),
    ("HEARTBEAT_INTERVAL_SECONDS", "1", "heartbeat_interval_seconds", 1.0),
    ("HANDLERS_MODULE", "myapp.job_handlers", "handlers_module", "myapp.job_handlers"),
    ("WORKER_QUEUE", f"{URL}, mails", "worker_queue", (URL, "mails")),
    ("WORKER_CONCURRENCY", "50", "worker_concurrency", 50),
    ("WORKER_GRACE_SECONDS", "2", "worker_grace_seconds", 2.0),
    ("WORKER_LONG_POLL_SECONDS", "0", "worker_long_poll_seconds", 0.0),
    ("RETENTION_SECONDS", "0", "retention_seconds", 0.0),
    ("SLO_BY_TENANT", "ON", "slo_by_tenant", "on"),
    ("MAX_PAYLOAD_BYTES", "1024", "max_payload_bytes", 1024),
    ("DB_POOL_MAX_SIZE", "4", "db_pool_max_size", 4),
    ("DB_PREPARED_STATEMENTS", "OFF", "db_prepared_statements", "off"),
    ("HEALTH_PORT", "8080", "health_port", 8080),
    ("HEALTH_HOST", "0.0.0.0", "health_host", "0.0.0.0"),  # noqa: S104
    ("GIVE_UP_SECONDS", "1.5", "give_up_seconds", 1.5),
    ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ("LOG_FORMAT", "JSON", "log_format", "json"),
    ("TESTING", "On", "testing", "on"),
]


@pytest.mark.parametrize(("variable", "text", "field", "value"), VARIABLES)
def test_a_variable_sets_its_field(variable: str, text: str, field: str, value: object) -> None:
    assert value == getattr(read(**{variable: text}), field)


def test_every_setting_is_read_by_a_test() -> None:
    own = {each.name for each in fields(AsyncJobsConfig)} - {"use_cases", "origin", "failpoints"}

    assert own - {field for _, _, field, _ in VARIABLES} == {
        "api_tokens",
        "per_tenant_quotas",
        "sqs_endpoint_url",
    }


def test_the_defaults_are_the_described_ones() -> None:
    config = read()

    assert (
        config.scheduler_interval_seconds,
        config.worker_poll_interval_seconds,
        config.worker_visibility_timeout_seconds,
        config.lease_duration_seconds,
    ) == (5, 1, 300, 300)
    assert (
        config.dispatch_lease_seconds,
        config.heartbeat_interval_seconds,
        config.worker_concurrency,
        config.worker_grace_seconds,
        config.worker_long_poll_seconds,
        config.retention_seconds,
        config.max_payload_bytes,
        config.db_pool_max_size,
    ) == (15, 30, 10, 20, 20, 604800, 262144, 10)
    assert (
        config.log_level,
        config.log_format,
        config.handlers_module,
        config.enqueue_auth_token,
        config.worker_queue,
    ) == ("INFO", "text", None, None, ())


def test_statements_are_prepared_unless_switched_off() -> None:
    assert (read().prepare_threshold, read(DB_PREPARED_STATEMENTS="off").prepare_threshold) == (
        5,
        None,
    )


def test_only_the_dsn_is_needed_to_build_one_by_hand() -> None:
    assert read() == AsyncJobsConfig(db_dsn=DSN)


def test_a_configuration_cannot_be_changed() -> None:
    config = read()

    with pytest.raises(FrozenInstanceError):
        config.log_level = "DEBUG"  # type: ignore[misc]  # what must fail
    with pytest.raises(TypeError):
        config.use_cases["mails"] = UseCaseConfig(name="mails")  # type: ignore[index]  # likewise


def test_settings_of_a_fast_test_are_accepted() -> None:
    config = read(
        LEASE_DURATION_SECONDS="3",
        SCHEDULER_INTERVAL_SECONDS="0.2",
        HEARTBEAT_INTERVAL_SECONDS="1",
        WORKER_GRACE_SECONDS="2",
    )

    assert config.heartbeat_interval_seconds == 1


def test_the_heartbeat_follows_a_short_lease() -> None:
    assert pytest.approx(read(LEASE_DURATION_SECONDS="3").heartbeat_interval_seconds) == 0.6


def test_sqs_gets_the_visibility_timeout_rounded_up() -> None:
    config = read(WORKER_VISIBILITY_TIMEOUT_SECONDS="2.1")

    assert (
        config.sqs_visibility_timeout_seconds,
        config.worker_visibility_timeout_seconds,
    ) == (3, 2.1)


def test_quotas_are_read_for_each_tenant() -> None:
    config = read(PER_TENANT_QUOTAS='{"tenant1": {"max_pending_jobs": 100, "weight": 0.5}}')

    assert TenantQuota(max_pending_jobs=100, weight=0.5) == config.quota_for("tenant1")
    assert TenantQuota() == config.quota_for("tenant2")


def test_the_star_is_for_tenants_that_are_not_named() -> None:
    text = '{"*": {"max_concurrent_jobs": 2}, "tenant1": {"max_pending_jobs": 0}}'
    config = read(PER_TENANT_QUOTAS=text)

    assert TenantQuota(max_concurrent_jobs=2) == config.quota_for("anyone")
    assert TenantQuota(max_pending_jobs=0) == config.quota_for("tenant1")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"x"', '{"a": {}, "a": {}}', "[" * 100_000, "{'a': 1}"],
)
def test_quotas_that_are_no_object_are_a_problem(text: str) -> None:
    found = problem(PER_TENANT_QUOTAS=text)

    assert found.startswith("ASYNC_JOBS_PER_TENANT_QUOTAS: ")
    assert "a JSON object" in found


@pytest.mark.parametrize(
    ("quota", "named"),
    [
        ({"max_pending": 1}, "'max_pending' (did you mean max_pending_jobs?)"),
        ({"zzz": 1}, "unknown key 'zzz'"),
        ({"max_pending_jobs": -1}, "max_pending_jobs: "),
        ({"max_pending_jobs": 1.5}, "max_pending_jobs: "),
        ({"max_pending_jobs": True}, "max_pending_jobs: "),
        ({"max_concurrent_jobs": "4"}, "max_concurrent_jobs: "),
        ({"weight": 0}, "weight: "),
        ({"weight": math.nan}, "weight: "),
        ([], "needs a JSON object"),
        (7, "needs a JSON object"),
    ],
)
def test_a_quota_that_cannot_be_used_is_named_with_its_tenant(quota: object, named: str) -> None:
    found = problem(PER_TENANT_QUOTAS=json.dumps({"tenant1": quota}))

    assert "ASYNC_JOBS_PER_TENANT_QUOTAS: tenant 'tenant1': " in found
    assert named in found


def test_all_problems_of_all_quotas_are_told() -> None:
    text = '{"a": {"x": 1, "weight": 0}, "b": 1, "c": {"max_pending_jobs": 3}}'

    assert len(problems(environment(PER_TENANT_QUOTAS=text))) == 3


def test_an_unknown_name_of_ours_is_a_warning_with_the_closest_known_name() -> None:
    (text,) = warned(environment(SCHEDULR_INTERVAL_SECONDS="1"))

    assert text.startswith("ASYNC_JOBS_SCHEDULR_INTERVAL_SECONDS is no setting")
    assert "did you mean ASYNC_JOBS_SCHEDULER_INTERVAL_SECONDS?" in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ASYNC_JOBS_SQS_QUEU_NOTIFICATIONS", "ASYNC_JOBS_SQS_QUEUE_NOTIFICATIONS"),
        ("async_jobs_log_level", "ASYNC_JOBS_LOG_LEVEL"),
        ("ASYNC_JOBS_NOTIFICATIONS_MAX_CONCURENT", "ASYNC_JOBS_NOTIFICATIONS_MAX_CONCURRENT"),
    ],
)
def test_the_hint_knows_names_of_use_cases_and_other_capitals(name: str, meant: str) -> None:
    (text,) = warned(environment() | {name: "1"})

    assert f"did you mean {meant}?" in text


def test_a_name_like_no_other_gets_no_hint() -> None:
    assert "did you mean" not in warned(environment() | {"ASYNC_JOBS_": "1"})[0]


def test_names_of_others_are_left_alone() -> None:
    assert warned(environment() | {"PATH": "/bin", "JOBS": "1", "AWS_REGION": "x"}) == []


def test_an_unknown_name_is_told_even_when_there_are_problems() -> None:
    texts: list[str] = []

    with pytest.raises(ConfigError):
        AsyncJobsConfig.from_env({"ASYNC_JOBS_DB_DNS": DSN}, warn=texts.append)
    assert "ASYNC_JOBS_DB_DSN?" in texts[0]


def test_by_default_the_warning_is_of_our_own_category_and_points_at_the_caller() -> None:
    with pytest.warns(ConfigWarning) as caught:
        AsyncJobsConfig.from_env(environment(NONSENSE="1"))

    assert __file__ == caught[0].filename


def test_without_arguments_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNC_JOBS_DB_DSN", "host=from-the-process")
    monkeypatch.setenv("ASYNC_JOBS_LOG_LEVEL", "ERROR")

    config = AsyncJobsConfig.from_env(warn=lambda text: None)

    assert (config.db_dsn, config.log_level) == ("host=from-the-process", "ERROR")


def described(config: AsyncJobsConfig) -> dict[str, tuple[str, str]]:
    return {each.name: (each.value, each.source) for each in config.describe()}


def test_a_description_tells_where_each_value_comes_from() -> None:
    env = environment(
        LEASE_DURATION_SECONDS="300", PER_TENANT_QUOTAS='{"a": {}}', MAILS_MAX_CONCURRENT="2"
    )
    lines = described(
        replace(AsyncJobsConfig.from_env(env | {"QUEUE_URL": URL}), log_level="DEBUG")
    )

    assert lines["ASYNC_JOBS_DB_DSN"] == ("(hidden)", "ASYNC_JOBS_DB_DSN")
    assert lines["ASYNC_JOBS_LEASE_DURATION_SECONDS"] == (
        "300",
        "ASYNC_JOBS_LEASE_DURATION_SECONDS",
    )
    assert lines["ASYNC_JOBS_HEARTBEAT_INTERVAL_SECONDS"] == ("30", "default")
    assert lines["ASYNC_JOBS_PER_TENANT_QUOTAS"] == ("1 tenants", "ASYNC_JOBS_PER_TENANT_QUOTAS")
    assert lines["ASYNC_JOBS_MAILS_MAX_CONCURRENT"] == ("2", "ASYNC_JOBS_MAILS_MAX_CONCURRENT")
    assert lines["ASYNC_JOBS_NOTIFICATIONS_MAX_CONCURRENT"] == ("10", "default")
    assert lines["ASYNC_JOBS_WORKER_QUEUE"] == (URL, "QUEUE_URL")
    assert lines["ASYNC_JOBS_LOG_LEVEL"] == ("DEBUG", "argument")


def test_a_value_that_replaced_one_from_the_environment_is_an_argument() -> None:
    config = replace(read(LOG_LEVEL="ERROR"), log_level="DEBUG")

    assert described(config)["ASYNC_JOBS_LOG_LEVEL"] == ("DEBUG", "argument")


def test_the_table_has_one_row_for_each_variable_and_begins_with_the_described_ones() -> None:
    rows = settings_table().splitlines()[2:]

    assert len(rows) == len(AsyncJobsConfig(db_dsn=DSN).describe())
    assert rows[0] == "| `ASYNC_JOBS_DB_DSN` | Yes | PostgreSQL connection string |"
    assert (
        "| `ASYNC_JOBS_NOTIFICATIONS_MAX_CONCURRENT` | No "
        "| Max concurrent notifications jobs (default: 10) |"
    ) in rows


def run_config(*arguments: str, env: Mapping[str, str]) -> tuple[int, str, str]:
    app = Typer()
    app.command()(config_command)
    result = CliRunner().invoke(app, list(arguments), env=dict(env))
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_the_effective_settings_with_secrets_masked() -> None:
    env = environment(ENQUEUE_AUTH_TOKEN="tok-tok-tok", WORKER_CONCURRENCY="7")
    code, out, _ = run_config(env=env)

    assert code == 0
    assert "ASYNC_JOBS_WORKER_CONCURRENCY=7  # ASYNC_JOBS_WORKER_CONCURRENCY\n" in out
    assert "ASYNC_JOBS_ENQUEUE_AUTH_TOKEN=(hidden)" in out
    assert "tok-tok-tok" not in out
    assert "hunter2" not in out


def test_the_command_ends_with_2_when_the_configuration_cannot_be_used() -> None:
    code, out, err = run_config(env=environment(LOG_LEVEL="LOUD"))

    assert (code, out) == (2, "")
    assert "ASYNC_JOBS_LOG_LEVEL: " in err


def test_the_table_is_printed_whatever_the_environment_holds() -> None:
    assert (0, settings_table(), "") == run_config("--markdown", env={"ASYNC_JOBS_DB_DSN": ""})
