"""Commands that serve say what to install where the `server` extra is missing."""

from __future__ import annotations

import sys

import pytest

from async_jobs.cli.api import create_app, server_extra
from async_jobs.config import AsyncJobsConfig
from async_jobs.errors import ConfigError


@pytest.mark.parametrize("missing", ["uvicorn", "jinja2"])
def test_a_missing_part_is_named_with_what_installs_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    told = pytest.raises(ConfigError, match=rf'{missing} is not .+ "async-jobs\[server\]"')
    with told, server_extra():
        __import__(missing)


def test_an_application_is_not_made_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "async_jobs.api.app", raising=False)

    with pytest.raises(ConfigError, match="uvicorn is not installed"):
        create_app(AsyncJobsConfig(db_dsn="postgresql:///jobs", enqueue_auth_token="a" * 32))


def test_any_other_missing_module_is_a_defect_and_shown_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fractions", None)

    with pytest.raises(ModuleNotFoundError), server_extra():
        __import__("fractions")
