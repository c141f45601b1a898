"""Filters of the jobs page, and moves on all that matches: counted first, bounded, audited once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import psycopg
import pytest

from async_jobs import JobService, NewJob, matching

from .conftest import JOB, Visitor

DEAD = (
    "UPDATE jobs SET status = 'dead', due = false, finished_at = now(), attempts = 1, "
    """last_error = '{"type": "Boom", "message": "it went"}'"""
)


def bury(database: str, where: str = "true") -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"{DEAD} WHERE {where}".encode())


def fields_of(page: str) -> dict[str, str]:
    """The hidden fields of the page's form, as a browser sends them."""
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: unescape(value) for name, value in hidden}


async def press(visitor: Visitor, verb: str, **query: str) -> Any:
    """Look at the count, then press its button."""
    page = (await visitor.get("bulk", move=verb, **query)).text
    return await visitor.post(f"actions/{verb}-all", fields_of(page))


async def test_each_filter_is_a_parameter_that_the_form_keeps(
    reader: Visitor, service: JobService
) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    mine = await service.enqueue(**JOB, payload={}, dedupe_key="order 7", run_at=soon)
    other = await service.enqueue(**JOB, payload={})
    asked = {
        "tenant_id": "acme",
        "use_case": "notifications",
        "status": "scheduled",
        "type": "send",
        "dedupe_key": "order 7",
        "run_from": f"{soon - timedelta(minutes=1):%Y-%m-%dT%H:%M}",
        "run_until": f"{soon + timedelta(minutes=1):%Y-%m-%dT%H:%M}",
        "enqueued_from": f"{soon - timedelta(days=1, minutes=1):%Y-%m-%dT%H:%M}",
    }

    text = (await reader.get("jobs", **asked)).text

    assert str(mine.job_id) in text
    assert str(other.job_id) not in text
    for name, value in asked.items():
        if name != "status":
            assert f'name="{name}" value="{value}"' in text
    assert "<option selected>scheduled</option>" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [({"late": "yes"}, 0), ({"failed": "yes"}, 1), ({"error": "Boom"}, 1), ({"error": "Bang"}, 0)],
)
async def test_what_failed_and_what_is_late_is_found(
    reader: Visitor, service: JobService, database: str, query: dict[str, str], found: int
) -> None:
    await service.enqueue(**JOB, payload={})
    await service.enqueue(**{**JOB, "type": "other"}, payload={})
    bury(database, "type = 'other'")

    assert (await reader.get("jobs", **query)).text.count("<tr><td") == 0
    assert (await reader.get("jobs", **query)).text.count("/dashboard/jobs/") == found


async def test_a_look_that_ends_early_says_so_and_goes_on(
    reader: Visitor, service: JobService, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.enqueue(**JOB, payload={})
    bury(database)
    await service.enqueue_many([NewJob(**JOB, payload={}) for _ in range(5)])
    monkeypatch.setattr(matching, "LOOKED_PER_PAGE", 3)

    for page in ("jobs", "dead"):
        first = (await reader.get(page, status="dead")).text
        following = first.split("cursor=")[1].split('"')[0]
        second = (await reader.get(page, status="dead", cursor=following)).text

        assert "Looked through 3 jobs for this page" in first
        assert "Boom" not in first
        assert second.count("/dashboard/jobs/") == 1, page


async def test_the_count_comes_first_and_one_audit_line_tells_of_the_move(
    operator: Visitor, service: JobService, database: str
) -> None:
    await service.enqueue_many([NewJob(**JOB, payload={}) for _ in range(7)])
    bury(database, "id IN (SELECT id FROM jobs LIMIT 2)")

    page = (await operator.get("bulk", move="cancel", tenant_id="acme")).text
    done = await press(operator, "cancel", tenant_id="acme")
    again = await press(operator, "requeue", tenant_id="acme")

    assert "5 jobs match now" in page
    assert done.headers["location"] == "/dashboard/jobs?done=cancel-5"
    assert again.headers["location"] == "/dashboard/jobs?done=requeue-2"
    states = [job.status for job in (await service.list()).jobs]
    assert sorted(states) == ["cancelled"] * 5 + ["pending"] * 2
    requeued, cancelled = await service.audit()
    assert (requeued.move, cancelled.move, cancelled.actor) == (
        "requeue",
        "cancel",
        "dashboard:ada",
    )
    assert cancelled.tenant_id == "acme"
    assert cancelled.after["chosen"] == 5
    assert cancelled.after["matching"]["status"] == "pending"


async def test_the_dead_of_one_type_and_error_are_requeued_alone(
    operator: Visitor, service: JobService, database: str
) -> None:
    await service.enqueue_many([NewJob(**JOB, payload={}) for _ in range(3)])
    other = await service.enqueue(**{**JOB, "type": "other"}, payload={})
    bury(database)

    dead = (await operator.get("dead")).text
    link = next(
        one for one in re.findall(r'href="([^"]+)"', dead) if "type=send" in one and "bulk" in one
    )
    page = (await operator.http.get(unescape(link))).text
    await operator.post("actions/requeue-all", fields_of(page))

    assert "3 jobs match now" in page
    assert (await service.get(other.job_id)).status == "dead"
    assert len((await service.list(status="pending")).jobs) == 3


async def test_what_is_enqueued_after_the_count_is_left_alone(
    operator: Visitor, service: JobService
) -> None:
    before = await service.enqueue(**JOB, payload={})
    page = (await operator.get("bulk", move="cancel")).text
    after = await service.enqueue(**JOB, payload={})
    for forged in (None, "2999-01-01T00:00:00+00:00"):
        fields = fields_of(page) | ({"previewed_at": forged} if forged else {})
        if forged is None:
            await operator.post("actions/cancel-all", fields)
            assert (await service.get(before.job_id)).status == "cancelled"
            assert (await service.get(after.job_id)).status == "pending"
    for text in ("", "soon", "0001-01-01T00:00:00+10:00"):
        answer = await operator.post(
            "actions/cancel-all", {**fields_of(page), "previewed_at": text}
        )
        assert answer.status_code == 422


async def test_a_move_ends_after_so_many_and_leads_back_to_the_count(
    operator: Visitor, service: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.enqueue_many([NewJob(**JOB, payload={}) for _ in range(7)])
    waits: list[float] = []
    monkeypatch.setattr(matching, "MOST_MOVED", 5)
    monkeypatch.setattr(matching, "MOST_COUNTED", 5)
    monkeypatch.setattr(matching, "MOVED_AT_ONCE", 2)
    monkeypatch.setattr(matching, "pause", _noting(waits))

    page = (await operator.get("bulk", move="cancel", use_case="notifications")).text
    first = await press(operator, "cancel", use_case="notifications")
    following = await operator.http.get(first.headers["location"])
    second = await operator.post("actions/cancel-all", fields_of(following.text))

    assert "5+ jobs match now" in page
    assert first.headers["location"].startswith(
        "/dashboard/bulk?use_case=notifications&move=cancel"
    )
    assert "cancel: 5 changed" in following.text
    assert "2 jobs match now" in following.text
    assert second.headers["location"] == "/dashboard/jobs?done=cancel-2"
    assert len(waits) == 2
    assert all(0 < seconds <= matching.SECONDS_PER_BATCH for seconds in waits)
    assert [line.after["chosen"] for line in await service.audit()] == [2, 5]


def _noting(waits: list[float]) -> Any:
    async def pause(seconds: float) -> None:
        waits.append(seconds)

    return pause


async def test_a_bound_token_counts_and_moves_its_own_only(
    bound: Visitor, service: JobService
) -> None:
    mine = await service.enqueue(**{**JOB, "tenant_id": "bolt"}, payload={})
    other = await service.enqueue(**JOB, payload={})

    page = (await bound.get("bulk", move="cancel", tenant_id="acme")).text
    await bound.post("actions/cancel-all", {**fields_of(page), "tenant_id": "acme"})

    assert "1 job matches now" in page
    assert (await service.get(other.job_id)).status == "pending"
    assert (await service.get(mine.job_id)).status == "cancelled"
    assert (await bound.send("actions/quota", "jobs", tenant_id="bolt")).status_code == 403


async def test_who_only_reads_sees_no_count_and_moves_nothing(
    reader: Visitor, service: JobService
) -> None:
    await service.enqueue(**JOB, payload={})

    assert (await reader.get("bulk", move="cancel")).status_code == 403
    assert "bulk" not in (await reader.get("jobs")).text.split("<main")[1]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"move": "delete"}, 404),
        ({}, 404),
        ({"move": "cancel", "status": "dead"}, 422),
        ({"move": "requeue", "status": "waiting"}, 422),
        ({"move": "cancel", "status": "<b>"}, 422),
        ({"move": "cancel", "cursor": "<b>"}, 404),
    ],
)
async def test_a_count_of_what_cannot_be_is_refused(
    operator: Visitor, query: dict[str, str], status: int
) -> None:
    answer = await operator.get("bulk", **query)

    assert answer.status_code == status
    assert "<b>" not in answer.text


async def test_a_tenants_quota_is_set_and_taken_back(
    operator: Visitor, service: JobService
) -> None:
    fields = {"tenant_id": "acme", "weight": "2.5", "max_concurrent_jobs": "4", "back": "use-cases"}
    done = await operator.send("actions/quota", **fields)
    shown = (await operator.get("use-cases")).text
    await operator.send("actions/quota", **{**fields, "weight": "", "max_concurrent_jobs": ""})

    assert done.headers["location"] == "/dashboard/use-cases?done=quota-1"
    assert "<td>acme</td>" in shown
    assert "<td>2.5</td>" in shown
    assert await service.overrides() == []
    assert [line.move for line in await service.audit()] == ["quota", "quota"]


@pytest.mark.parametrize(
    "wrong",
    [{"weight": "0"}, {"weight": "nan"}, {"burst": "1.5"}, {"burst": "-1"}, {"tenant_id": "<b>"}],
)
async def test_a_quota_that_does_not_fit_is_refused(
    operator: Visitor, service: JobService, wrong: dict[str, str]
) -> None:
    answer = await operator.send("actions/quota", **{"tenant_id": "acme", **wrong})

    assert answer.status_code == 422
    assert "<b>" not in answer.text
    assert await service.overrides() == []
