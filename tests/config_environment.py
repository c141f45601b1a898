"""Builds configurations from variables given in short, for the tests of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from async_jobs.config import AsyncJobsConfig
from async_jobs.errors import ConfigError

DSN = "postgresql://user:hunter2@db.example/jobs"
URL = "https://sqs.us-east-1.amazonaws.com/123456789/notifications"


def read(**variables: str) -> AsyncJobsConfig:
    """A configuration from these variables; ASYNC_JOBS_ goes before the names."""
    return AsyncJobsConfig.from_env(environment(**variables))


def environment(**variables: str) -> dict[str, str]:
    return {"ASYNC_JOBS_DB_DSN": DSN} | {f"ASYNC_JOBS_{k}": v for k, v in variables.items()}


def problems(env: Mapping[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        AsyncJobsConfig.from_env(env, warn=lambda text: None)
    return raised.value.problems


def problem(**variables: str) -> str:
    (only,) = problems(environment(**variables))
    return only


def warned(env: Mapping[str, str]) -> list[str]:
    texts: list[str] = []
    AsyncJobsConfig.from_env(env, warn=texts.append)
    return texts
