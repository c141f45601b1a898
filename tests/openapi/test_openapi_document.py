"""The API does what its OpenAPI document says, whatever is sent: checked by Schemathesis.

It makes requests that fit the document and requests that do not, sends them to a real API process
on a real database, and compares every answer with the document: no 5xx, only documented statuses,
content types and shapes, nothing accepted that the document refuses, no way around the token.

CI sends about a thousand requests. Some fifty thousand, with another seed, in ten minutes:

    API_EXAMPLES=4000 API_SEED=7 pytest --timeout 3600 tests/openapi
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from moving_parts import environment

from async_jobs import JobService
from async_jobs.api.app import build_app

schemathesis = pytest.importorskip("schemathesis", reason="comes with the extra `test`")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

EXAMPLES = int(os.environ.get("API_EXAMPLES", "40"))
SEED = int(os.environ.get("API_SEED", "1"))
TOKEN = "the-token-of-the-tests"


@pytest.fixture(scope="module")
def api_url(postgres_dsn: str, shared_database: str) -> Iterator[str]:
    """The address of an API process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "async_jobs.cli.main", "api", "--port", "0"],
        env=environment(ASYNC_JOBS_DB_DSN=shared_database, ASYNC_JOBS_ENQUEUE_AUTH_TOKEN=TOKEN),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"ready: (http://\S+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield found[1]
    finally:
        process.kill()
        process.communicate()


def _document() -> dict[str, Any]:
    app = build_app(
        _unused, require_auth_token=True, expected_auth_token=TOKEN, max_payload_bytes=262_144
    )
    document = app.openapi()
    # Which use cases there are is this API process's configuration.
    jobs = document["components"]["schemas"]["EnqueueRequest"]["properties"]
    jobs["use_case"] = {"type": "string", "enum": ["notifications", "message_labeling"]}
    jobs["queue"] = {"type": "null"}
    return document


def _unused() -> JobService:
    raise AssertionError("only the document is asked for")


# Query parameters that are not ours are let through: an application may have its own.
schema = schemathesis.openapi.from_dict(
    _document(),
    config=schemathesis.Config.from_dict({"generation": {"allow-extra-parameters": False}}),
)


@schema.parametrize()
@seed(SEED)
@settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
def test_every_answer_is_as_documented(case: Any, api_url: str) -> None:
    case.call_and_validate(
        base_url=api_url,
        headers={"Authorization": f"Bearer {TOKEN}"},
        excluded_checks=[positive_data_acceptance],
    )
