"""The router as a guest: it keeps its manners in somebody else's application."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from jobs_api import BEARER, JOB, TOKEN, app_around, caller
from moving_parts import PREPARED
from pydantic import BaseModel

from async_jobs import AsyncJobsConfig, JobService, create_jobs_router
from async_jobs.api.app import build_app
from async_jobs.cli.api import create_app
from async_jobs.errors import ConfigError, InvalidJob

NOBODY = AsyncJobsConfig(db_dsn="postgresql://nobody@127.0.0.1:1/none")


class Item(BaseModel):
    size: int


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


async def test_other_routes_keep_their_own_answers(service: JobService) -> None:
    app = app_around(service)

    @app.post("/items")
    async def make(item: Item) -> None:
        raise InvalidJob("x", "y", "z")

    app.add_exception_handler(InvalidJob, _teapot)
    async with caller(app) as api:
        wrong = await api.post("/items", json={"size": "x"})
        raised = await api.post("/items", json={"size": 1})

    assert wrong.json()["detail"][0]["type"] == "int_parsing"
    assert raised.status_code == 418


async def _teapot(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({}, 418)


async def test_an_async_factory_is_awaited(service: JobService) -> None:
    async def factory() -> JobService:
        return service

    app = FastAPI()
    app.include_router(create_jobs_router(factory, expected_auth_token=TOKEN))
    async with caller(app) as api:
        answer = await api.get("/jobs/")

    assert answer.status_code == 200


@pytest.mark.parametrize("prefix", ["", "/v1/work"])
async def test_the_prefix_can_be_chosen(service: JobService, prefix: str) -> None:
    async with caller(app_around(service, prefix=prefix)) as api:
        answer = await api.post(f"{prefix}/enqueue", json=JOB | {"priority": "x"})
        listed = await api.get(f"{prefix}/")

    assert answer.status_code == 422
    assert listed.status_code == 200


async def test_an_application_may_include_the_router_under_a_path_of_its_own(
    service: JobService,
) -> None:
    app = FastAPI()
    router = create_jobs_router(lambda: service, expected_auth_token=TOKEN)
    app.include_router(router, prefix="/api")
    async with caller(app) as api:
        listed = await api.get("/api/jobs")
        refused = await api.get("/api/jobs", headers={"Authorization": ""})

    assert listed.status_code == 200
    assert refused.status_code == 401


async def test_a_dependency_of_the_application_runs_after_the_token_was_checked(
    service: JobService,
) -> None:
    seen: list[str] = []

    def forbid(request: Request) -> None:
        seen.append(request.url.path)
        raise HTTPException(403)

    async with caller(app_around(service, dependencies=[Depends(forbid)])) as api:
        unknown = await api.get("/jobs/", headers={"Authorization": "Bearer x"})
        known = await api.get("/jobs/")

    assert (unknown.status_code, known.status_code) == (401, 403)
    assert seen == ["/jobs/"]


async def test_a_fault_of_ours_stays_an_exception() -> None:
    def broken() -> JobService:
        raise RuntimeError("ours")

    app = FastAPI()
    app.include_router(create_jobs_router(broken, expected_auth_token=TOKEN))
    async with caller(app) as api:
        with pytest.raises(RuntimeError, match="ours"):
            await api.get("/jobs/")


def test_the_openapi_document_tells_what_the_endpoints_do() -> None:
    paths = _document()["paths"]

    assert list(paths) == [
        "/jobs/enqueue",
        "/jobs/enqueue-many",
        "/jobs/",
        "/jobs/slo",
        "/jobs/{job_id}",
        "/jobs/{job_id}/explain",
        "/jobs/{job_id}/cancel",
        "/jobs/{job_id}/requeue",
    ]
    assert " ".join(sorted(paths["/jobs/enqueue"]["post"]["responses"])) == (
        "200 201 401 403 408 409 413 415 422 429 503"
    )
    assert set(paths["/jobs/{job_id}"]["get"]["responses"]) == {
        "200",
        "401",
        "403",
        "404",
        "422",
        "503",
    }


def test_the_openapi_document_knows_our_problems_and_not_the_framework_s() -> None:
    document = _document()
    refusals = [
        answer["content"]["application/json"]["schema"]["$ref"]
        for path in document["paths"].values()
        for operation in path.values()
        for status, answer in operation["responses"].items()
        if status >= "4"
    ]

    assert set(refusals) == {"#/components/schemas/ProblemView"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_openapi_document_says_that_a_token_is_needed() -> None:
    document = _document()
    operations = [one for path in document["paths"].values() for one in path.values()]

    assert all(operation["security"] == [{"HTTPBearer": []}] for operation in operations)


def _document() -> dict[str, Any]:
    app = FastAPI()
    app.include_router(create_jobs_router(_no_service, expected_auth_token=TOKEN))
    return app.openapi()


def _no_service() -> JobService:
    raise AssertionError("called")


def whole_app() -> FastAPI:
    return build_app(
        _no_service,
        require_auth_token=True,
        expected_auth_token=TOKEN,
        max_payload_bytes=262_144,
    )


async def test_the_whole_application_shows_nothing_but_its_health_without_the_token() -> None:
    paths = ["/", "/docs", "/redoc", "/openapi.json", "/jobs", "/jobs/", "/jobs/x", "/metrics"]
    async with caller(whole_app()) as api:
        del api.headers["Authorization"]
        health = await api.get("/healthz")
        statuses = {path: (await api.get(path)).status_code for path in paths}

    assert health.json() == {"status": "ok"}
    assert set(statuses.values()) == {401, 404}
    assert statuses["/openapi.json"] == 401


async def test_the_whole_application_describes_itself_to_those_with_the_token() -> None:
    async with caller(whole_app()) as api:
        answer = await api.get("/openapi.json", headers=BEARER)

    assert "/jobs/enqueue" in answer.json()["paths"]


def test_the_whole_application_is_not_made_without_a_token() -> None:
    with pytest.raises(ConfigError, match="ASYNC_JOBS_ENQUEUE_AUTH_TOKEN"):
        create_app(NOBODY)


async def test_the_lifespan_of_the_whole_application_opens_the_pool(database: str) -> None:
    app = create_app(
        AsyncJobsConfig(db_dsn=database, db_prepared_statements=PREPARED, enqueue_auth_token=TOKEN)
    )
    async with app.router.lifespan_context(app), caller(app) as api:
        answer = await api.get("/jobs/")

    assert answer.status_code == 200
