"""What the pages show, to whom, and that nothing foreign becomes part of them."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from async_jobs import JobService, NewJob
from async_jobs.dashboard.wording import duration, redacted

from .conftest import JOB, PAGES, Visitor


@pytest.mark.parametrize("page", PAGES)
async def test_every_page_is_shown_when_there_is_nothing_yet(reader: Visitor, page: str) -> None:
    answer = await reader.get(page)

    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert " style=" not in answer.text
    assert "<script>" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


async def test_the_overview_says_what_is_in_danger(reader: Visitor, service: JobService) -> None:
    await service.enqueue(
        **JOB,
        payload={},
        run_at=datetime.now(UTC) - timedelta(seconds=90),
        delay_tolerance_seconds=30,
    )
    await service.enqueue(**JOB, payload={}, delay_tolerance_seconds=45)

    text = (await reader.get("")).text

    assert "1 of 2 use cases needs a look" in text
    assert "1 late, the oldest by 60 s" in text
    assert "late: 1, 0-10 s: 0, 10-60 s: 1" in text


async def test_a_job_is_found_by_filter_and_told_whole(
    reader: Visitor, service: JobService
) -> None:
    mine = await service.enqueue(**JOB, payload={"to": "ada", "password": "sesame"})
    await service.enqueue(**{**JOB, "type": "other"}, payload={})
    await service.cancel(mine.job_id)

    listed = (await reader.get("jobs", status="cancelled", tenant_id="acme")).text
    shown = (await reader.get(f"jobs/{mine.job_id}")).text

    assert str(mine.job_id) in listed
    assert "other" not in listed
    assert "&#34;to&#34;: &#34;ada&#34;" in shown
    assert "sesame" not in shown
    assert "It is cancelled since" in shown


async def test_a_waiting_job_tells_why_it_waits(reader: Visitor, service: JobService) -> None:
    job = await service.enqueue(**JOB, payload={})

    assert (
        "No scheduler for notifications has been seen"
        in (await reader.get(f"jobs/{job.job_id}")).text
    )


async def test_pages_of_jobs_follow_one_another(reader: Visitor, service: JobService) -> None:
    await service.enqueue_many([NewJob(**JOB, payload={}) for _ in range(60)])

    first = await reader.get("jobs")
    following = first.text.split("cursor=")[1].split('"')[0]
    second = await reader.get("jobs", cursor=following)

    assert first.text.count("/dashboard/jobs/") == 50
    assert second.text.count("/dashboard/jobs/") == 10


async def test_dead_jobs_stand_together_by_type_and_error(
    reader: Visitor, service: JobService, database: str
) -> None:
    for _ in range(3):
        await service.enqueue(**JOB, payload={})
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "UPDATE jobs SET status = 'dead', due = false, finished_at = now(), "
            """last_error = '{"type": "Boom", "message": "it went"}'"""
        )

    text = (await reader.get("dead")).text

    assert text.count("<article") == 1
    assert "Boom" in text
    assert "acme 3" in text
    assert "Requeue" not in text


async def test_what_is_not_there_is_told(reader: Visitor) -> None:
    for path in (f"jobs/{uuid4()}", "jobs/nonsense"):
        answer = await reader.get(path)

        assert answer.status_code == 404
        assert "There is no such job" in answer.text


async def test_what_the_database_refuses_is_told_with_what_it_needs(
    reader: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise psycopg.errors.InsufficientPrivilege("permission denied for table jobs_audit")

    monkeypatch.setattr(JobService, "audit", refuse)
    answer = await reader.get("audit")

    assert answer.status_code == 403
    assert "lacks the role async_jobs_operator of deploy/roles.sql" in answer.text


async def test_the_files_are_ours_alone(reader: Visitor) -> None:
    types = [
        (await reader.get(f"static/{name}")).headers.get("content-type", "")
        for name in ("dashboard.css", "dashboard.js")
    ]

    assert types == ["text/css; charset=utf-8", "text/javascript; charset=utf-8"]
    assert (await reader.get("static/page.html")).status_code == 404


async def test_the_files_are_kept_by_browsers_at_addresses_that_change_with_them(
    reader: Visitor,
) -> None:
    page = (await reader.get("")).text
    places = re.findall(r'"/dashboard/(static/dashboard\.(?:css|js)\?[0-9a-f]{12})"', page)

    assert len(places) == 2
    for place in places:
        answer = await reader.get(place)
        digest = hashlib.sha256(answer.content).hexdigest()
        assert place.endswith(digest[:12])
        assert "immutable" in answer.headers["cache-control"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_times_are_said_as_people_say_them() -> None:
    said = [duration(each) for each in (0.25, 42.0, 150.0, 9_000.0, 400_000.0, -30.0, None)]

    assert said == ["0.2 s", "42 s", "2 min", "2 h", "5 d", "-30 s", "–"]


def test_secrets_are_masked_wherever_they_stand() -> None:
    given = {"to": "ada", "auth": {"apiKey": "k", "list": [{"Password": "p", "n": 1}]}}

    assert redacted(given) == {
        "to": "ada",
        "auth": {"apiKey": "•••", "list": [{"Password": "•••", "n": 1}]},
    }
