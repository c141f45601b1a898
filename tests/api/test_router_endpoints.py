"""What the endpoints do when all is well, and what they say about the state of jobs."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx2
import psycopg
import pytest
from jobs_api import JOB, app_around, caller, opened_service

from async_jobs import AsyncJobsConfig, JobService, JobStore, create_pool
from async_jobs.config import TenantQuota

MANY = """
    INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
        deadline_at, due)
    SELECT ('ffffffff-ffff-7fff-8fff-' || lpad(n::text, 12, '0'))::uuid, tenant_id, use_case, type,
        queue, '{}', run_at, delay_tolerance, deadline_at, true
    FROM jobs, generate_series(1, 20000) AS n
"""
SEED_FIELDS = ["id", "tenant_id", "use_case", "type", "status", "payload"]
DESCRIBED = JOB | {
    "queue": "notifications",
    "run_at": "2024-01-01T12:00:00Z",
    "delay_tolerance_seconds": 60,
    "max_attempts": 3,
    "backoff_policy": {
        "type": "exponential",
        "base_delay_seconds": 60,
        "max_delay_seconds": 3600,
    },
    "dedupe_key": "optional-dedup-key",
    "priority": 0,
}


async def enqueued(api: httpx2.AsyncClient, **changes: object) -> str:
    answer = await api.post("/jobs/enqueue", json=JOB | changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job_id"])


async def test_no_request_is_handed_to_a_thread(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI calls plain functions in threads, which takes longer than all else it does."""

    async def refused(*_: object, **__: object) -> None:
        raise AssertionError("a thread was asked for")

    monkeypatch.setattr("anyio.to_thread.run_sync", refused)
    job_id = await enqueued(api)

    assert (await api.post("/jobs/enqueue-many", json={"jobs": [JOB]})).status_code == 201
    for path in ("", "slo", "metrics", job_id, f"{job_id}/explain"):
        assert (await api.get(f"/jobs/{path}")).status_code == 200
    for move in ("cancel", "requeue"):
        assert (await api.post(f"/jobs/{job_id}/{move}")).status_code == 200
    assert (await api.get("/jobs/enqueue")).status_code == 405


async def test_the_described_request_is_accepted_as_it_stands(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/jobs/enqueue", json=DESCRIBED)

    assert answer.status_code == 201
    assert UUID(answer.json()["job_id"]).version == 7
    assert answer.json()["deduplicated"] is False


async def test_a_second_unfinished_job_with_the_same_key_is_not_made(
    api: httpx2.AsyncClient,
) -> None:
    first = await api.post("/jobs/enqueue", json=DESCRIBED)
    second = await api.post("/jobs/enqueue", json=DESCRIBED)

    assert second.status_code == 200
    assert second.json() == {
        "job_id": first.json()["job_id"],
        "deduplicated": True,
        "predicted_start_at": None,
        "feasible": True,
    }


async def test_a_hundred_callers_with_one_key_get_one_job(
    api: httpx2.AsyncClient, service: JobService
) -> None:
    answers = await asyncio.gather(*(api.post("/jobs/enqueue", json=DESCRIBED) for _ in range(100)))

    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [201]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert len((await service.list()).jobs) == 1


async def test_the_same_key_for_another_request_is_a_conflict_that_names_the_job(
    api: httpx2.AsyncClient,
) -> None:
    job_id = await enqueued(api, dedupe_key="k")

    answer = await api.post("/jobs/enqueue", json=JOB | {"dedupe_key": "k", "payload": {}})

    assert answer.status_code == 409
    assert answer.json()["error"] == "dedupe_conflict"
    assert answer.json()["job_id"] == job_id


async def test_a_tenant_beyond_its_quota_is_told_when_to_come_back(database: str) -> None:
    quotas = {"tenant1": TenantQuota(max_pending_jobs=1)}
    async with (
        opened_service(database, per_tenant_quotas=quotas) as service,
        caller(app_around(service)) as api,
    ):
        await enqueued(api)
        refused = await api.post("/jobs/enqueue", json=JOB)
        other = await api.post("/jobs/enqueue", json=JOB | {"tenant_id": "tenant2"})

    assert refused.status_code == 429
    assert refused.json()["error"] == "quota_exceeded"
    assert int(refused.headers["Retry-After"]) >= 1
    assert other.status_code == 201


async def test_a_batch_is_stored_in_its_order(api: httpx2.AsyncClient) -> None:
    jobs = [JOB | {"payload": {"n": n}} for n in range(3)]

    answer = await api.post("/jobs/enqueue-many", json={"jobs": jobs})
    ids = [one["job_id"] for one in answer.json()["jobs"]]
    stored = [(await api.get(f"/jobs/{job_id}")).json()["payload"]["n"] for job_id in ids]

    assert answer.status_code == 201
    assert stored == [0, 1, 2]


async def test_a_batch_of_nothing_new_answers_200(api: httpx2.AsyncClient) -> None:
    job_id = await enqueued(api, dedupe_key="k")

    answer = await api.post("/jobs/enqueue-many", json={"jobs": [JOB | {"dedupe_key": "k"}]})

    assert answer.status_code == 200
    (only,) = answer.json()["jobs"]
    assert (only["job_id"], only["deduplicated"]) == (job_id, True)


async def test_a_batch_of_a_thousand_jobs_is_accepted(
    api: httpx2.AsyncClient, service: JobService
) -> None:
    answer = await api.post("/jobs/enqueue-many", json={"jobs": [JOB] * 1_000})

    assert answer.status_code == 201
    assert len((await service.list(limit=1_000)).jobs) == 1_000


async def test_a_job_shows_the_described_fields_first(api: httpx2.AsyncClient) -> None:
    job = (await api.get(f"/jobs/{await enqueued(api)}")).json()

    assert list(job)[:6] == SEED_FIELDS
    assert {name: job[name] for name in JOB} == JOB
    assert job["status"] == "pending"


async def test_an_id_in_capitals_finds_its_job(api: httpx2.AsyncClient) -> None:
    job_id = await enqueued(api)

    answer = await api.get(f"/jobs/{job_id.upper()}")

    assert answer.json()["id"] == job_id


@pytest.mark.parametrize("path", ["/jobs", "/jobs/"])
async def test_jobs_are_listed_newest_first_a_page_at_a_time(
    api: httpx2.AsyncClient, path: str
) -> None:
    ids = [await enqueued(api) for _ in range(3)]

    first = (await api.get(path, params={"limit": 2})).json()
    rest = (await api.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [job["id"] for job in first["jobs"]] == [ids[2], ids[1]]
    assert [job["id"] for job in rest["jobs"]] == [ids[0]]
    assert rest["next_cursor"] is None


async def test_a_page_that_looked_far_and_found_little_says_so_and_goes_on(
    api: httpx2.AsyncClient, service: JobService, database: str
) -> None:
    rare = await enqueued(api)
    await service.cancel(UUID(rare))
    with psycopg.connect(database) as conn:
        conn.execute(MANY)

    first = (await api.get("/jobs/", params={"status": "cancelled"})).json()
    query = {"status": "cancelled", "cursor": first["next_cursor"]}
    rest = (await api.get("/jobs/", params=query)).json()

    assert (first["jobs"], first["looked_through"]) == ([], 20_000)
    assert [job["id"] for job in rest["jobs"]] == [rare]
    assert (rest["next_cursor"], rest["looked_through"]) == (None, 0)


@pytest.mark.parametrize(
    "filters",
    [
        {"tenant_id": "tenant2"},
        {"use_case": "message_labeling"},
        {"use_case": "Message-Labeling"},
        {"status": "cancelled"},
        {"tenant_id": "tenant2", "status": "cancelled", "use_case": "message_labeling"},
    ],
)
async def test_filters_narrow_the_list(api: httpx2.AsyncClient, filters: dict[str, str]) -> None:
    await enqueued(api)
    other = await enqueued(api, tenant_id="tenant2", use_case="message_labeling")
    await api.post(f"/jobs/{other}/cancel")

    answer = await api.get("/jobs/", params=filters)

    assert [job["id"] for job in answer.json()["jobs"]] == [other]


async def test_a_query_parameter_of_somebody_else_is_left_alone(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/jobs/", params={"token": "x", "v": ["1", "2"]})

    assert answer.status_code == 200


async def test_a_cancel_may_be_repeated_and_the_job_requeued(api: httpx2.AsyncClient) -> None:
    job_id = await enqueued(api)

    cancelled = await api.post(f"/jobs/{job_id}/cancel")
    again = await api.post(f"/jobs/{job_id}/cancel")
    requeued = await api.post(f"/jobs/{job_id}/requeue")

    assert cancelled.json()["status"] == "cancelled"
    assert (again.status_code, again.json()) == (200, cancelled.json())
    assert requeued.json()["status"] == "pending"


async def test_an_unfinished_job_cannot_be_requeued(api: httpx2.AsyncClient) -> None:
    answer = await api.post(f"/jobs/{await enqueued(api)}/requeue")

    assert answer.status_code == 409


async def test_a_pool_that_was_never_opened_answers_503_and_how_to_open_it() -> None:
    config = AsyncJobsConfig(db_dsn="postgresql://nobody:secret@127.0.0.1:1/none")
    service = JobService(config, JobStore(create_pool(config)))
    async with caller(app_around(service)) as api:
        answer = await api.get("/jobs/")

    assert answer.status_code == 503
    assert answer.json()["error"] == "store_unavailable"
    assert "open=False" in answer.json()["detail"][0]["message"]
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_database_that_is_gone_answers_503_without_saying_where_it_was() -> None:
    config = AsyncJobsConfig(db_dsn="postgresql://nobody:secret@127.0.0.1:1/none")
    pool = create_pool(config)
    await pool.open(wait=False)
    service = JobService(config, JobStore(pool, timeout_seconds=0.2))
    async with caller(app_around(service)) as api:
        answer = await api.post("/jobs/enqueue", json=JOB)
    await pool.close()

    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert "127.0.0.1" not in answer.text
    assert "secret" not in answer.text


async def test_a_list_leaves_payloads_out_unless_asked_for(api: httpx2.AsyncClient) -> None:
    await api.post("/jobs/enqueue", json=JOB)

    [without] = (await api.get("/jobs/")).json()["jobs"]
    [whole] = (await api.get("/jobs/?payloads=true")).json()["jobs"]
    alone = (await api.get(f"/jobs/{whole['id']}")).json()

    assert (without["payload"], without["result"]) == (None, None)
    assert whole == alone
    assert without == alone | {"payload": None}
