"""What is masked in a payload is told nowhere else either; and the chart of the last hour."""

from __future__ import annotations

from typing import Any

import httpx2
import psycopg
import pytest
from fastapi import FastAPI

from async_jobs import JobService
from async_jobs.core.slo_report import Minute
from async_jobs.dashboard.charts import timeline
from async_jobs.dashboard.router import create_dashboard_router
from async_jobs.dashboard.wording import hidden_texts, redacted, without

from .conftest import JOB, PAGES, Visitor

FAILED = """
    UPDATE jobs SET status = 'dead', due = false, finished_at = now(), attempts = 1, result = %(r)s,
        last_error = jsonb_build_object(
            'type', 'Boom', 'message', %(m)s::text, 'traceback', %(m)s::text)
"""


async def shown(service: JobService, database: str, path: str, **how: Any) -> str:
    """A page as everybody sees it, of a dashboard with another `redact`."""
    app = FastAPI()
    app.include_router(create_dashboard_router(lambda: service, require_auth_token=False, **how))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.get(f"/dashboard/{path}")).text


async def test_no_page_tells_a_secret_of_payload_result_error_or_traceback(
    reader: Visitor, service: JobService, database: str
) -> None:
    payload = {"to": "ada", "auth": {"password": "sesame-open"}}
    job = await service.enqueue(**JOB, payload=payload)
    text = "login('sesame-open') failed: token=tell-nobody, postgres://ada:hidden-too@db/x"
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(FAILED, {"r": '{"api_key": "of-result"}', "m": text})

    for page in (*PAGES, f"jobs/{job.job_id}", "jobs?status=dead&failed=yes"):
        found = (await reader.http.get(f"/dashboard/{page}")).text
        for secret in ("sesame-open", "tell-nobody", "hidden-too", "of-result"):
            assert secret not in found, (page, secret)
    told = (await reader.get(f"jobs/{job.job_id}")).text
    assert "login(&#39;•••&#39;) failed" in told
    assert "login(&#39;•••&#39;) failed" in (await reader.get("dead")).text


async def test_a_redact_of_ones_own_is_held_to_in_errors_too(
    service: JobService, database: str
) -> None:
    job = await service.enqueue(**JOB, payload={"iban": "DE89 3704", "to": "ada"})
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(FAILED, {"r": '{"iban": "DE89 3704"}', "m": "no account DE89 3704 for ada"})

    def redact(value: Any) -> Any:
        return {**value, "iban": "masked"} if "iban" in value else value

    for path in (f"jobs/{job.job_id}", "dead"):
        text = await shown(service, database, path, redact=redact)
        assert "DE89" not in text, path
        assert "for ada" in text, path


async def test_who_masks_everything_sees_nothing_of_a_job(
    service: JobService, database: str
) -> None:
    job = await service.enqueue(**JOB, payload={"to": "ada"})
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(FAILED, {"r": '["ada"]', "m": "ada is away"})

    text = await shown(service, database, f"jobs/{job.job_id}", redact=lambda value: "masked")

    assert "ada" not in text
    assert text.count("masked") == 3


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("password=sesame", "password=•••"),
        ("{'api_key': 'k1', 'to': 'ada'}", "{'api_key': •••, 'to': 'ada'}"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer •••"),
        ("https://ada:pw@host/x", "https://ada:•••@host/x"),
        ("the token ran out", "the token ran out"),
        ('"secret": "a b c", 1', '"secret": •••, 1'),
    ],
)
def test_secrets_in_texts_are_masked(text: str, kept: str) -> None:
    assert redacted(text) == kept


def test_only_what_is_masked_everywhere_is_hidden() -> None:
    plain = {"a": "sesame", "b": ["ada", 4711], "c": "xy", "d": None, "e": True}

    hidden = hidden_texts(plain, {"b": ["ada"]})

    assert hidden == {"sesame", "4711"}
    assert without({"m": ["sesame street 4711", 1]}, hidden) == {"m": ["••• street •••", 1]}


def test_the_last_hour_is_drawn_with_what_was_late() -> None:
    drawn = timeline([Minute(59, 4, 1, 30.0), Minute(0, 10, 0, 0.0), Minute(75, 1, 0, 0.0)])

    assert drawn is not None
    assert drawn.count('class="started"') == 2
    assert drawn.count('class="late"') == 1
    assert "59 min ago: 4 started, 1 late by 30 s on average" in drawn
    assert timeline([]) is None


async def test_the_overview_draws_what_the_slo_record_says(
    reader: Visitor, service: JobService, database: str
) -> None:
    assert "minute by minute" not in (await reader.get("")).text
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO jobs_slo SELECT 'notifications', '', measure, 60, "
            "date_bin('1 min', now() - interval '3 min', '2000-01-01 00:00Z'), "
            "total, late, seconds, '{0,0,0,0,0,0,0}' "
            "FROM (VALUES ('start', 12, 3, 0.0), ('lateness', 3, 0, 36.0)) "
            "AS told (measure, total, late, seconds)"
        )

    text = (await reader.get("")).text

    assert "12 started, 3 late by 12 s on average" in text
    assert [each.late for each in await service.slo_minutes()] == [3]
