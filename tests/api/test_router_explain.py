"""`GET /jobs/{job_id}/explain`: what is answered, and what a tenant's own token is not told."""

from __future__ import annotations

from uuid import uuid4

import httpx2
from jobs_api import JOB, app_around, caller

from async_jobs import JobService
from async_jobs.access import ApiToken


async def test_it_tells_the_causes_with_their_figures(api: httpx2.AsyncClient) -> None:
    job_id = (await api.post("/jobs/enqueue", json=JOB)).json()["job_id"]

    answer = await api.get(f"/jobs/{job_id}/explain")

    told = answer.json()
    assert (answer.status_code, told["job_id"], told["state"]) == (200, job_id, "waiting")
    assert [cause["code"] for cause in told["causes"]] == ["no_scheduler", "no_worker"]
    assert told["summary"] == told["causes"][0]["text"]


async def test_there_must_be_such_a_job(api: httpx2.AsyncClient) -> None:
    assert (await api.get(f"/jobs/{uuid4()}/explain")).status_code == 404


async def test_a_token_bound_to_a_tenant_explains_that_tenants_jobs_only(
    service: JobService,
) -> None:
    enqueued = await service.enqueue(**{**JOB, "tenant_id": "tenant1"})
    tokens = [
        ApiToken.for_text(f"secret-of-{tenant}", name=tenant, scopes=["read"], tenant_id=tenant)
        for tenant in ("tenant1", "tenant2")
    ]
    app = app_around(service, tokens=tokens)

    statuses = []
    async with caller(app) as http:
        for tenant in ("tenant1", "tenant2"):
            answer = await http.get(
                f"/jobs/{enqueued.job_id}/explain",
                headers={"Authorization": f"Bearer secret-of-{tenant}"},
            )
            statuses.append(answer.status_code)

    assert statuses == [200, 404]
