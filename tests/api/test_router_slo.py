"""`GET /jobs/slo`: who may ask, what is answered, what is refused."""

from __future__ import annotations

import httpx2
from jobs_api import JOB, app_around, caller

from async_jobs import JobService


async def test_every_use_case_is_told_even_before_anything_ran(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/jobs/slo")

    assert answer.status_code == 200
    told = answer.json()["use_cases"]
    assert [each["use_case"] for each in told] == ["notifications", "message_labeling"]
    assert told[0]["last_hour"] == {"started": 0, "late": 0, "kept_share": None}
    assert (told[0]["budget_left"], told[0]["alert"], told[0]["required_slots"]) == (1.0, "none", 0)


async def test_waiting_jobs_are_told_by_time_to_deadline(api: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await api.post("/jobs/enqueue", json=JOB | {"delay_tolerance_seconds": 50})

    answer = await api.get("/jobs/slo", params={"use_case": "notifications", "tenants": True})

    [told] = answer.json()["use_cases"]
    assert [step for step in told["demand"] if step["jobs"]] == [
        {"until_seconds": 60.0, "jobs": 3, "cut": False}
    ]
    assert told["required_slots"] == 1
    assert [(each["tenant_id"], each["share"]) for each in told["tenants"]] == [("tenant1", 10.0)]


async def test_it_is_asked_for_with_the_same_token(service: JobService) -> None:
    async with caller(app_around(service)) as http:
        answer = await http.get("/jobs/slo", headers={"Authorization": "Bearer wrong"})

    assert answer.status_code == 401


async def test_an_unknown_use_case_or_window_is_refused(api: httpx2.AsyncClient) -> None:
    for params in ({"use_case": "nothing"}, {"window": "1w"}):
        answer = await api.get("/jobs/slo", params=params)

        assert answer.status_code == 422, params
