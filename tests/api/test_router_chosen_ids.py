"""A caller may choose the id of its job, and then repeat its request."""

from __future__ import annotations

import httpx2
import pytest
from jobs_api import JOB, app_around, caller, opened_service

from async_jobs import JobService
from async_jobs.access import ApiToken
from async_jobs.errors import InvalidJob
from async_jobs.models import new_job_id

BOUND = ApiToken.for_text("bound", name="bound", tenant_id="tenant2")
AS_BOUND = {"Authorization": "Bearer bound"}


async def test_a_request_is_repeated_under_its_id(api: httpx2.AsyncClient) -> None:
    asked = JOB | {"job_id": str(new_job_id())}

    first = await api.post("/jobs/enqueue", json=asked)
    again = await api.post("/jobs/enqueue", json=asked)
    stored = await api.get(f"/jobs/{asked['job_id']}")

    assert (first.status_code, again.status_code, stored.status_code) == (201, 200, 200)
    assert first.json()["job_id"] == again.json()["job_id"] == asked["job_id"]
    assert (first.json()["deduplicated"], again.json()["deduplicated"]) == (False, True)


async def test_a_batch_is_repeated_under_its_ids(api: httpx2.AsyncClient) -> None:
    asked = {"jobs": [JOB | {"job_id": str(new_job_id())} for _ in range(3)]}

    answers = [await api.post("/jobs/enqueue-many", json=asked) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 200]
    assert len((await api.get("/jobs/")).json()["jobs"]) == 3


async def test_another_request_under_the_id_is_a_conflict(api: httpx2.AsyncClient) -> None:
    asked = JOB | {"job_id": str(new_job_id())}
    await api.post("/jobs/enqueue", json=asked)

    answer = await api.post("/jobs/enqueue", json=asked | {"type": "other"})

    assert (answer.status_code, answer.json()["error"]) == (409, "job_id_taken")
    assert answer.json()["detail"][0]["loc"] == ["body", "job_id"]


async def test_another_tenants_id_is_answered_like_ones_own_taken_one(service: JobService) -> None:
    theirs, mine = new_job_id(), new_job_id()
    await service.enqueue(**JOB | {"payload": {"Zq7": "Zq7"}}, job_id=theirs)
    own = JOB | {"tenant_id": "tenant2"}

    async with caller(app_around(service, tokens=[BOUND]), follow_redirects=False) as api:
        api.headers.update(AS_BOUND)
        await api.post("/jobs/enqueue", json=own | {"job_id": str(mine), "type": "other"})
        answers = [
            await api.post("/jobs/enqueue", json=own | {"job_id": str(job_id)})
            for job_id in (theirs, mine)
        ]

    one, other = (answer.text.replace(str(theirs), str(mine)) for answer in answers)
    assert one == other
    assert "Zq7" not in one
    assert "tenant1" not in one


async def test_a_repeated_request_needs_no_room_in_the_quota(database: str) -> None:
    quotas = {"tenant1": {"max_pending_jobs": 1}}
    async with (
        opened_service(database, per_tenant_quotas=quotas) as service,
        caller(app_around(service)) as api,
    ):
        asked = JOB | {"job_id": str(new_job_id())}
        statuses = [
            (await api.post("/jobs/enqueue", json=each)).status_code for each in (asked, asked, JOB)
        ]

    assert statuses == [201, 200, 429]


NO_IDS = [
    "Zq7",
    "",
    7,
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "{018f2f6e-0b7c-7cc1-8a3b-0123456789ab}",
    "018f2f6e0b7c7cc18a3b0123456789ab",
]


@pytest.mark.parametrize("job_id", NO_IDS)
async def test_what_is_no_id_cannot_be_chosen(api: httpx2.AsyncClient, job_id: object) -> None:
    answer = await api.post("/jobs/enqueue", json=JOB | {"job_id": job_id})

    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_uuid")
    assert answer.json()["detail"][0]["loc"] == ["body", "job_id"]


async def test_a_text_is_no_id_in_python(service: JobService) -> None:
    with pytest.raises(InvalidJob, match="job_id"):
        await service.enqueue(**JOB, job_id=str(new_job_id()))
