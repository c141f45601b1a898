"""Who may act, from where, and the audit line that each action leaves."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import FastAPI

from async_jobs import JobService
from async_jobs.dashboard.actions import ACTIONS
from async_jobs.dashboard.router import create_dashboard_router
from async_jobs.errors import ConfigError

from .conftest import JOB, PAGES, Visitor


async def test_nobody_sees_a_page_without_signing_in(visitor: Visitor) -> None:
    for page in PAGES:
        answer = await visitor.get(page)

        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/sign-in")


async def test_signing_in_with_a_token_opens_the_pages_and_signing_out_shuts_them(
    visitor: Visitor,
) -> None:
    wrong = await visitor.send("sign-in", "sign-in", token="guessed")
    right = await visitor.send("sign-in", "sign-in", token="reads")
    cookie = right.headers["set-cookie"]
    opened = await visitor.get("")
    await visitor.send("sign-out")
    shut = await visitor.get("")

    assert (wrong.status_code, right.status_code) == (401, 303)
    assert "guessed" not in wrong.text
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert (opened.status_code, shut.status_code) == (200, 303)


async def test_a_token_without_read_sees_nothing(visitor: Visitor) -> None:
    await visitor.send("sign-in", "sign-in", token="enqueues")

    assert (await visitor.get("jobs")).status_code == 403


async def test_who_only_reads_has_no_buttons_and_no_actions(
    reader: Visitor, service: JobService
) -> None:
    job = await service.enqueue(**JOB, payload={})

    assert "/actions/" not in (await reader.get(f"jobs/{job.job_id}")).text
    for action in ACTIONS:
        answer = await reader.send(
            f"actions/{action}", job_id=str(job.job_id), use_case="notifications", name="w"
        )
        assert answer.status_code == 403, action
    assert (await service.get(job.job_id)).status == "pending"
    assert await service.audit() == []


@pytest.mark.parametrize(
    ("site", "form"),
    [
        ({"sec-fetch-site": "cross-site"}, "right"),
        ({"sec-fetch-site": "same-site"}, "right"),
        ({"sec-fetch-site": "same-origin"}, "0" * 64),
        ({"sec-fetch-site": "same-origin"}, ""),
    ],
)
async def test_a_form_of_another_site_changes_nothing(
    operator: Visitor, service: JobService, site: dict[str, str], form: str
) -> None:
    job = await service.enqueue(**JOB, payload={})
    page = (await operator.get("jobs")).text
    right = page.split('name="form" value="')[1].split('"')[0]

    fields = {"form": right if form == "right" else form, "job_id": str(job.job_id)}
    answer = await operator.post("actions/cancel", fields, **site)

    assert answer.status_code == 403
    assert (await service.get(job.job_id)).status == "pending"


async def test_an_origin_that_is_not_ours_is_refused_where_the_browser_says_no_more(
    operator: Visitor, service: JobService
) -> None:
    job = await service.enqueue(**JOB, payload={})
    right = (await operator.get("jobs")).text.split('name="form" value="')[1].split('"')[0]

    statuses = []
    for origin in ("http://elsewhere", "http://localhost"):
        answer = await operator.http.post(
            "/dashboard/actions/cancel",
            data={"form": right, "job_id": str(job.job_id)},
            headers={"origin": origin},
        )
        statuses.append(answer.status_code)

    assert statuses == [403, 303]


async def test_chosen_jobs_are_cancelled_and_requeued_with_an_audit_line_each(
    operator: Visitor, service: JobService
) -> None:
    ids = [str((await service.enqueue(**JOB, payload={})).job_id) for _ in range(3)]

    cancelled = await operator.send("actions/cancel", job_id=ids[:2], back="jobs")
    again = await operator.send("actions/cancel", job_id=ids[:2], back="jobs")
    requeued = await operator.send("actions/requeue", job_id=ids[0], back="job")

    assert cancelled.headers["location"] == "/dashboard/jobs?done=cancel-2"
    assert again.headers["location"] == "/dashboard/jobs?done=cancel-2"
    assert requeued.headers["location"] == f"/dashboard/jobs/{ids[0]}?done=requeue-1"
    told = [(line.actor, line.move) for line in await service.audit()]
    assert told == [
        ("dashboard:ada", "requeue"),
        ("dashboard:ada", "cancel"),
        ("dashboard:ada", "cancel"),
    ]


async def test_a_use_case_is_paused_scaled_and_resumed(
    operator: Visitor, service: JobService
) -> None:
    for action, more in (("pause", {}), ("scale", {"capacity": "80"}), ("resume", {})):
        answer = await operator.send(
            f"actions/{action}", "use-cases", use_case="notifications", back="use-cases", **more
        )
        assert answer.headers["location"] == f"/dashboard/use-cases?done={action}-1"

    [left] = await service.overrides()
    assert (left.setting, left.value, left.changed_by) == ("capacity", 80, "dashboard:ada")
    assert "capacity set by dashboard:ada" in (await operator.get("use-cases")).text


@pytest.mark.parametrize("capacity", ["-1", "0", "1e3", "9999999999999", "many", "٣"])
async def test_a_capacity_that_does_not_fit_is_a_clear_refusal(
    operator: Visitor, service: JobService, capacity: str
) -> None:
    answer = await operator.send(
        "actions/scale", "use-cases", use_case="notifications", capacity=capacity
    )

    assert answer.status_code == 422
    assert await service.overrides() == []


async def test_broken_forms_are_refused(operator: Visitor) -> None:
    for action, fields in (
        ("cancel", {"job_id": "nonsense"}),
        ("pause", {}),
        ("pause", {"use_case": ["a", "b"]}),
        ("pause", {"use_case": "nothing"}),
        ("cancel", {"job_id": "x" * 70_000}),
    ):
        answer = await operator.send(f"actions/{action}", **fields)
        assert answer.status_code in (413, 422), action


async def test_nobody_is_sent_to_another_site(operator: Visitor) -> None:
    for back in ("//elsewhere", "https://elsewhere", "../..", "job"):
        answer = await operator.send("actions/cancel", back=back)
        assert answer.headers["location"] == "/dashboard/?done=cancel-0"


async def test_a_bound_token_sees_and_touches_its_tenants_jobs_only(
    bound: Visitor, service: JobService
) -> None:
    mine = await service.enqueue(**{**JOB, "tenant_id": "bolt"}, payload={})
    other = await service.enqueue(**JOB, payload={})

    listed = (await bound.get("jobs", tenant_id="acme")).text
    await bound.send("actions/cancel", "jobs", job_id=[str(other.job_id), str(mine.job_id)])

    assert str(mine.job_id) in listed
    assert str(other.job_id) not in listed
    assert (await bound.get(f"jobs/{other.job_id}")).status_code == 404
    assert (await service.get(other.job_id)).status == "pending"
    assert (await service.get(mine.job_id)).status == "cancelled"
    for page in ("use-cases", "processes"):
        assert (await bound.get(page)).status_code == 403
    refused = await bound.send("actions/pause", "jobs", use_case="notifications")
    assert refused.status_code == 403
    assert "acme" not in (await bound.get("audit")).text


async def test_without_tokens_everybody_acts_and_forms_are_still_guarded(
    service: JobService,
) -> None:
    app = FastAPI()
    app.include_router(create_dashboard_router(lambda: service, require_auth_token=False))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        visitor = Visitor(http)
        fields = {"use_case": "notifications"}
        without = await visitor.post("actions/pause", fields)
        opened = await visitor.send("actions/pause", "use-cases", **fields)

    assert (without.status_code, opened.status_code) == (403, 303)


def test_a_dashboard_that_nobody_could_enter_is_not_made(service: JobService) -> None:
    with pytest.raises(ConfigError):
        create_dashboard_router(lambda: service)
