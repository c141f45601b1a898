"""Enqueue says when a job will start; who wants no late job has it refused, in every way in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import psycopg
import pytest
import pytest_asyncio
from jobs_api import JOB, TOKEN, app_around, caller, opened_service

from async_jobs import AsyncJobsHttpClient, JobService, NewJob
from async_jobs.core.forecast import Demand, Finished
from async_jobs.errors import ApiError, DeadlineInfeasible, StoreUnavailable
from async_jobs.forecaster import AFTER_FAILURE_SECONDS, Forecaster
from async_jobs.models import AcceptedJob, new_job_id

BACKLOG = """
    INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
        deadline_at, created_at, due, status, attempts, started_at, finished_at)
    SELECT gen_random_uuid(), 'acme', 'notifications', 'send', 'notifications', '{}', at,
        tolerance, at + tolerance, at, n > 20, CASE WHEN n > 20 THEN 'pending' ELSE 'succeeded' END,
        0, CASE WHEN n <= 20 THEN at END, CASE WHEN n <= 20 THEN at + interval '1 second' END
    FROM generate_series(1, 20 + %s) AS n,
        LATERAL (
            SELECT now() - interval '2 seconds' AS at, interval '100 seconds' AS tolerance
        ) AS t
"""
"""Twenty jobs of a second that have finished, and some that wait: ten at a time, a second each."""


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


@pytest_asyncio.fixture
async def service(database: str) -> AsyncIterator[JobService]:
    async with opened_service(database) as service:
        yield service


@pytest_asyncio.fixture
async def http(service: JobService) -> AsyncIterator[httpx2.AsyncClient]:
    async with caller(app_around(service)) as http:
        yield http


def stored(db: psycopg.Connection[Any]) -> int:
    row = db.execute("SELECT count(*) FROM jobs WHERE type = 'send_email'").fetchone()
    assert row is not None
    return int(row[0])


async def test_with_nothing_measured_nothing_is_foreseen_and_nothing_refused(
    service: JobService,
) -> None:
    enqueued = await service.enqueue(**JOB, reject_if_infeasible=True, delay_tolerance_seconds=0)

    assert (enqueued.predicted_start_at, enqueued.feasible) == (None, True)


async def test_an_idle_use_case_starts_a_job_at_once(
    service: JobService, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [0])
    enqueued = await service.enqueue(**JOB)

    assert enqueued.feasible
    assert enqueued.predicted_start_at is not None
    assert enqueued.predicted_start_at < datetime.now(UTC) + timedelta(seconds=1)


async def test_a_backlog_before_its_deadline_makes_a_job_wait_and_one_after_it_does_not(
    service: JobService, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [400])
    now = datetime.now(UTC)
    behind = await service.enqueue(**JOB, delay_tolerance_seconds=200)
    before = await service.enqueue(**JOB, delay_tolerance_seconds=20)

    assert behind.predicted_start_at is not None
    assert before.predicted_start_at is not None
    assert 30 < (behind.predicted_start_at - now).total_seconds() < 45
    assert (before.predicted_start_at - now).total_seconds() < 2


async def test_what_this_process_enqueued_counts_before_the_demand_is_read_again(
    service: JobService, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [0])
    batch = await service.enqueue_many([NewJob(**JOB) for _ in range(200)])
    after = await service.enqueue(**JOB)

    assert after.predicted_start_at is not None
    assert (after.predicted_start_at - datetime.now(UTC)).total_seconds() > 10
    times = [each.predicted_start_at for each in batch]
    assert times == sorted(times)  # type: ignore[type-var] # none is None
    assert times[0] < times[-1]  # type: ignore[operator] # the same


async def test_a_job_of_the_future_is_foreseen_no_earlier_than_it_may_run(
    service: JobService, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [0])
    run_at = datetime.now(UTC) + timedelta(hours=1)
    enqueued = await service.enqueue(**JOB, run_at=run_at)

    assert enqueued.feasible
    assert enqueued.predicted_start_at is not None
    assert enqueued.predicted_start_at >= run_at


async def test_a_job_that_would_be_late_is_stored_and_says_so(
    service: JobService, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [4_000])

    assert not (await service.enqueue(**JOB, delay_tolerance_seconds=150)).feasible
    assert stored(db) == 1


async def test_on_demand_it_is_refused_before_anything_is_written(
    service: JobService, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [4_000])

    with pytest.raises(DeadlineInfeasible, match="delay_tolerance_seconds") as refused:
        await service.enqueue(**JOB, delay_tolerance_seconds=150, reject_if_infeasible=True)

    assert refused.value.predicted_start_at > refused.value.deadline_at
    assert stored(db) == 0
    assert (await service.enqueue(**JOB, delay_tolerance_seconds=3_600)).feasible


async def test_a_batch_is_refused_whole_and_says_for_which_job(
    service: JobService, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [4_000])
    patient = NewJob(**JOB, delay_tolerance_seconds=3_600, reject_if_infeasible=True)
    urgent = NewJob(**JOB, delay_tolerance_seconds=150, reject_if_infeasible=True)

    with pytest.raises(DeadlineInfeasible) as refused:
        await service.enqueue_many([patient, urgent])

    assert (refused.value.index, stored(db)) == (1, 0)


async def test_over_http_the_answer_holds_the_forecast(
    http: httpx2.AsyncClient, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [4_000])
    answer = await http.post("/jobs/enqueue", json=JOB | {"delay_tolerance_seconds": 150})

    assert answer.status_code == 201
    assert answer.json()["feasible"] is False
    assert datetime.fromisoformat(answer.json()["predicted_start_at"]) > datetime.now(UTC)


async def test_over_http_an_infeasible_job_is_a_conflict_with_its_reason(
    http: httpx2.AsyncClient, db: psycopg.Connection[Any]
) -> None:
    db.execute(BACKLOG, [4_000])
    asked = JOB | {"delay_tolerance_seconds": 150, "reject_if_infeasible": True}
    answer = await http.post("/jobs/enqueue", json=asked)

    problem = answer.json()
    assert (answer.status_code, problem["error"]) == (409, "deadline_infeasible")
    assert problem["detail"][0]["loc"] == ["body", "delay_tolerance_seconds"]
    assert "after its deadline" in problem["detail"][0]["message"]
    assert datetime.fromisoformat(problem["predicted_start_at"]) > datetime.now(UTC)
    assert stored(db) == 0

    batch = await http.post("/jobs/enqueue-many", json={"jobs": [JOB, asked]})
    assert batch.status_code == 409
    assert batch.json()["detail"][0]["loc"] == ["body", "jobs", 1, "delay_tolerance_seconds"]


async def test_the_client_has_both(service: JobService, db: psycopg.Connection[Any]) -> None:
    db.execute(BACKLOG, [4_000])
    async with (
        caller(app_around(service)) as http,
        AsyncJobsHttpClient("http://localhost", TOKEN, http_client=http) as client,
    ):
        late = NewJob(**JOB, delay_tolerance_seconds=150)
        answer = await client.enqueue_and_forecast(late)
        with pytest.raises(ApiError) as refused:
            await client.enqueue(**JOB, delay_tolerance_seconds=150, reject_if_infeasible=True)

    assert not answer.feasible
    assert answer.predicted_start_at is not None
    assert (refused.value.status, refused.value.code) == (409, "deadline_infeasible")
    assert refused.value.predicted_start_at is not None


async def test_the_client_sends_the_parents_deadline_along(service: JobService) -> None:
    parent = datetime.now(UTC) + timedelta(seconds=5)
    async with (
        caller(app_around(service)) as http,
        AsyncJobsHttpClient("http://localhost", TOKEN, http_client=http) as client,
    ):
        job_id = await client.enqueue(**JOB, parent_deadline_at=parent)

    assert (await service.get(job_id)).deadline_at == parent


class Desk:
    """Gives a demand, after a while or not at all."""

    def __init__(self, *, error: Exception | None = None, hangs: bool = False) -> None:
        self.error, self.hangs, self.reads, self.at = error, hangs, 0, 100.0
        self.origin = self

    def monotonic(self) -> float:
        return self.at

    async def read_demand(self, use_case: str) -> Demand:
        self.reads += 1
        if self.error:
            raise self.error
        if self.hangs:
            await asyncio.Event().wait()
        return Demand(finished=[Finished(due_ago=3.0, started_ago=3.0, finished_ago=2.0)])


async def foreseen(desk: Desk) -> datetime | None:
    now = datetime.now(UTC)
    job = AcceptedJob(
        id=new_job_id(),
        tenant_id="acme",
        use_case="mail",
        type="send",
        queue="mail",
        payload_json="{}",
        run_at=None,
        delay_tolerance_seconds=60.0,
        max_attempts=3,
        backoff_json=None,
        dedupe_key=None,
        priority=0,
    )
    [forecast] = await Forecaster(desk, monotonic=desk.monotonic).forecast("mail", 1, [job], now)
    assert forecast.feasible
    return forecast.predicted_start_at


async def test_the_demand_is_read_once_a_second_at_most() -> None:
    desk = Desk()
    for _ in range(5):
        assert await foreseen(desk) is not None
        desk.at += 0.19
    assert desk.reads == 1

    desk.at += 0.1
    await foreseen(desk)
    assert desk.reads == 2


@pytest.mark.parametrize(
    "desk", [Desk(error=StoreUnavailable()), Desk(error=OSError()), Desk(hangs=True)]
)
async def test_a_demand_that_cannot_be_read_refuses_nothing_and_is_left_alone_for_a_while(
    desk: Desk,
) -> None:
    assert await foreseen(desk) is None
    assert await foreseen(desk) is None
    assert desk.reads == 1

    desk.at += AFTER_FAILURE_SECONDS
    await foreseen(desk)
    assert desk.reads == 2
