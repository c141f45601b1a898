"""Nothing secret is said: by any process, in any log line, answer, error or document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import psycopg
import pytest
from command_line import run
from psycopg.conninfo import make_conninfo

from async_jobs.access import digest_of

PASSWORD, TOKEN, BOUND = "canaryPass7", "canaryToken7", "canaryBound7"
PAYLOAD = "canaryPayload7"
SECRETS = [PASSWORD, TOKEN, BOUND, PAYLOAD, digest_of(TOKEN.encode()).hex()]
TOKENS = json.dumps([{"name": "shop", "token": BOUND, "tenant_id": "acme", "scopes": ["enqueue"]}])


def secrets_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.slow
async def test_no_process_says_a_password_a_token_or_a_payload(
    make_stage: Callable[..., Any], owner_dsn: str
) -> None:
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS canary")
        owner.execute(f"CREATE ROLE canary SUPERUSER LOGIN PASSWORD '{PASSWORD}'".encode())
    stage = make_stage(
        ASYNC_JOBS_ENQUEUE_AUTH_TOKEN=TOKEN,
        ASYNC_JOBS_API_TOKENS=TOKENS,
        ASYNC_JOBS_LOG_LEVEL="DEBUG",
    )
    dsn = make_conninfo(owner_dsn, user="canary", password=PASSWORD)
    stage.scheduler(ASYNC_JOBS_DB_DSN=dsn)
    stage.worker(ASYNC_JOBS_DB_DSN=dsn)
    api = stage.start("api", "--port", "0", ASYNC_JOBS_DB_DSN=dsn)
    await stage.until("the API is ready", lambda: "ready: http" in api.log)
    url = re.findall(r"ready: (http://\S+)", api.log)[0]

    said = await _provoke(url)
    await stage.until("a job is dead", lambda: "dead: " in stage.said())
    await stage.until("another is given back", lambda: "given back: " in stage.said())
    stage.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'canary'")
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        said += [(await http.get(f"{url}/jobs/")).text for _ in range(3)]
    stage.stop_all()

    assert secrets_in("\n".join(said)) == []
    assert [secrets_in(each.log) for each in stage.processes] == [[], [], []]
    assert "attempt 1" in stage.said()


async def _provoke(url: str) -> list[str]:
    """Every kind of answer to good and bad requests, none of which is a job asked for whole."""
    job = {
        "tenant_id": "acme",
        "use_case": "flow",
        "type": "flaky",
        "payload": {"secret": PAYLOAD, "succeeds_at": 9},
        "max_attempts": 1,
        "dedupe_key": "k",
    }
    said = []
    async with httpx2.AsyncClient() as http:
        for token in (TOKEN, BOUND, "wrong", TOKEN[:-1]):
            headers = {"Authorization": f"Bearer {token}"}
            for changes in (
                {},
                {"type": "nobody", "dedupe_key": "no twin of the first"},
                {"max_attempts": 0},
                {"tenant_id": f"{PAYLOAD} "},
            ):
                content = job | changes
                answer = await http.post(f"{url}/jobs/enqueue", json=content, headers=headers)
                said.append(f"{answer.headers} {answer.text}")
            for path in ("/jobs/", f"/jobs/{PAYLOAD}", "/jobs/slo", "/openapi.json", f"/{PAYLOAD}"):
                answer = await http.get(f"{url}{path}", headers=headers)
                said.append(f"{answer.headers} {answer.text}")
    return said


UNUSABLE = {
    "nobody listens": f"postgresql://ada:{PASSWORD}@127.0.0.1:1/none",
    "a port that is none": f"postgresql://ada:{PASSWORD}@127.0.0.1:{PASSWORD}/none",
    "a password with a percent sign": f"postgresql://ada:{PASSWORD}%zz@127.0.0.1/none",
    "a password with a slash": f"postgresql://ada:{PASSWORD}/{PASSWORD}@127.0.0.1/none",
    "a password with an at sign": f"postgresql://ada:x@{PASSWORD}@127.0.0.1/none",
    "a password with a hash": f"postgresql://ada:x#{PASSWORD}@127.0.0.1/none",
    "an open quote": f"host=127.0.0.1 password='{PASSWORD}",
    "an unknown word": f"host=127.0.0.1 {PASSWORD}=x",
    "no DSN": f"mysql://ada:{PASSWORD}@127.0.0.1/none",
}


@pytest.mark.parametrize("dsn", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_connection_string_that_cannot_be_used_is_not_repeated(dsn: str) -> None:
    env = {
        "ASYNC_JOBS_DB_DSN": dsn,
        "ASYNC_JOBS_ENQUEUE_AUTH_TOKEN": TOKEN,
        "ASYNC_JOBS_HANDLERS_MODULE": "flow_handlers",
        "ASYNC_JOBS_LOG_LEVEL": "DEBUG",
    }
    ended = run("worker", env=env)

    assert ended.code in (1, 2)
    assert secrets_in(ended.said) == []
    assert "Traceback" not in ended.said
