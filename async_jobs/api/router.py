"""The HTTP endpoints of the job service, as a router for any FastAPI application.

    from async_jobs import create_jobs_router
    app.include_router(create_jobs_router(job_service_factory=..., expected_auth_token=...))

The endpoints only translate: shapes in, one call to the JobService, a shape out.
Every rule about jobs is the service's, and every refusal is worded in
`problems`. Nothing is installed on the application, and no connection is kept.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from async_jobs.access import ApiToken, Identity, Scope
from async_jobs.api.auth import Gate, ShownBearer, gate_for, identity_of
from async_jobs.api.bounded import ANSWER_WITHIN_SECONDS, within
from async_jobs.api.problems import Refusal, other_tenant
from async_jobs.api.route import route_class
from async_jobs.core.acceptance import NAME_PATTERN
from async_jobs.core.exposition import CONTENT_TYPE, exposition
from async_jobs.core.slo import WINDOWS
from async_jobs.errors import InvalidJob
from async_jobs.models import Job, JobStatus
from async_jobs.schemas import (
    EnqueueManyRequest,
    EnqueueManyResponse,
    EnqueueRequest,
    EnqueueResponse,
    ExplanationView,
    JobId,
    JobListView,
    JobView,
    ProblemView,
    SloView,
)
from async_jobs.service import MOST_PER_PAGE, JobService

T = TypeVar("T")
JobServiceFactory = Callable[[], JobService | Awaitable[JobService]]

MAX_REQUEST_BYTES = 1024 * 1024
_BATCH_FACTOR = 4
_FILTERS = {
    "list": ("tenant_id", "use_case", "status", "limit", "cursor", "payloads"),
    "slo": ("use_case", "tenant_id", "tenants", "window"),
    "autoscaling": ("use_case", "slots_per_worker", "within_seconds", "lead_seconds"),
}
_MOST_WITH_PAYLOADS = 100
_REFUSALS = {
    401: "The token is missing or wrong.",
    403: "The token lacks the endpoint's scope, or is bound to another tenant.",
    404: "There is no such job.",
    408: "The content did not arrive in time.",
    409: "What is stored does not allow it, or the job would be late and was not to be stored.",
    413: "The request or its payload is too large.",
    415: "The content is not application/json.",
    422: "Something in the request cannot be accepted.",
    429: "The tenant's quota is used up, or it is above its share of an overloaded use case; see "
    "Retry-After.",
    503: "The database does not answer; see Retry-After.",
}

Absent = SkipJsonSchema[None]
Name = Annotated[str | Absent, Query(pattern=f"^{NAME_PATTERN}$")]
Window = Annotated[str, Query(json_schema_extra={"enum": list(WINDOWS)})]


def _digits(value: object) -> object:
    """Text that is a number in its one usual spelling; what is not is no number here."""
    return value if not isinstance(value, str) or re.fullmatch(r"-?[0-9]{1,21}", value) else None


def _word(value: object) -> object:
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else value


Limit = Annotated[int, Field(ge=1, le=MOST_PER_PAGE), BeforeValidator(_digits), Query()]
Flag = Annotated[bool, BeforeValidator(_word)]


def create_jobs_router(
    job_service_factory: JobServiceFactory,
    require_auth_token: bool = True,
    expected_auth_token: str | Sequence[str] | None = None,
    *,
    tokens: Sequence[ApiToken] = (),
    prefix: str = "/jobs",
    tags: Sequence[str | Enum] = ("jobs",),
    dependencies: Sequence[Dependency] = (),
    max_request_bytes: int = MAX_REQUEST_BYTES,
    answer_within_seconds: float = ANSWER_WITHIN_SECONDS,
) -> APIRouter:
    """The router with every endpoint of the job service.

    *job_service_factory* is called for each request; it may be async. Whoever shows
    *expected_auth_token* may do everything. With two of them both are valid: add the new one,
    change the callers, drop the old one. *tokens* are good for what their scopes say, and for
    their tenant's jobs only if they have one: pass `config.api_tokens`.
    *dependencies* run after the token was checked. *max_request_bytes* bounds what is read of
    one request, four times as much for enqueue-many; raise it together with
    ASYNC_JOBS_MAX_PAYLOAD_BYTES. After *answer_within_seconds* without a word from the database
    the answer is 503.

    Raises ConfigError if a token is required and none, or a blank one, is expected.
    """
    gate = gate_for(expected_auth_token, tokens) if require_auth_token else None
    shown = [] if gate is None else [Security(ShownBearer())]
    router = APIRouter(prefix=prefix, tags=list(tags), dependencies=[*shown, *dependencies])
    endpoints = _Endpoints(job_service_factory, answer_within_seconds)
    _add_enqueue(router, endpoints, gate, max_request_bytes)
    _add_reading(router, endpoints, route_class(gate, max_request_bytes, Scope.READ))
    _add_operating(router, endpoints, route_class(gate, max_request_bytes, Scope.OPERATE))
    return router


def _add_enqueue(
    router: APIRouter, endpoints: _Endpoints, gate: Gate | None, most_bytes: int
) -> None:
    for path, endpoint, shape, factor in (
        ("/enqueue", endpoints.enqueue, EnqueueResponse, 1),
        ("/enqueue-many", endpoints.enqueue_many, EnqueueManyResponse, _BATCH_FACTOR),
    ):
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            status_code=201,
            response_model=shape,
            responses={
                200: {"model": shape, "description": "Unfinished jobs with these keys exist."},
                **refusals(408, 409, 413, 415, 429),
            },
            route_class_override=route_class(gate, factor * most_bytes, Scope.ENQUEUE),
        )
        # Without this, the word would be taken for a job's id.
        router.add_api_route(
            path,
            refuse_method,
            methods=["GET"],
            include_in_schema=False,
            route_class_override=route_class(gate, 0),
        )


def _add_reading(router: APIRouter, endpoints: _Endpoints, route: type[APIRoute]) -> None:
    for path in ("/", "") if router.prefix else ("/",):
        router.add_api_route(
            path,
            endpoints.list_jobs,
            methods=["GET"],
            response_model=JobListView,
            responses=refusals(),
            dependencies=[Depends(refuse_doubtful("list"))],
            include_in_schema=path == "/",
            route_class_override=route,
        )
    router.add_api_route(
        "/slo",
        endpoints.slo,
        methods=["GET"],
        response_model=SloView,
        responses=refusals(),
        dependencies=[Depends(refuse_doubtful("slo"))],
        route_class_override=route,
    )
    router.add_api_route(
        "/metrics",
        endpoints.metrics,
        methods=["GET"],
        include_in_schema=False,
        route_class_override=route,
    )
    for path, endpoint, shape in (
        ("/{job_id}", endpoints.get_job, JobView),
        ("/{job_id}/explain", endpoints.explain, ExplanationView),
    ):
        router.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            response_model=shape,
            responses=refusals(404),
            route_class_override=route,
        )


def _add_operating(router: APIRouter, endpoints: _Endpoints, route: type[APIRoute]) -> None:
    for path, endpoint in (
        ("/{job_id}/cancel", endpoints.cancel),
        ("/{job_id}/requeue", endpoints.requeue),
    ):
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=JobView,
            responses=refusals(404, 409),
            route_class_override=route,
        )


class _Endpoints:
    """One method for each endpoint; their first lines are the texts of the OpenAPI document."""

    def __init__(self, job_service_factory: JobServiceFactory, within_seconds: float) -> None:
        self._factory = job_service_factory
        self._within_seconds = within_seconds

    async def enqueue(self, job: EnqueueRequest, request: Request) -> Response:
        """Enqueue one job: 201, or 200 if an unfinished job has its dedupe_key already."""
        _check_tenant(identity_of(request), job.tenant_id, "body", "tenant_id")
        service = await self._service()
        enqueued = await self._in_time(service.enqueue(job.to_new_job()))
        answer = EnqueueResponse.model_validate(enqueued)
        return json_answer(answer, 200 if enqueued.deduplicated else 201)

    async def enqueue_many(self, batch: EnqueueManyRequest, request: Request) -> Response:
        """Enqueue up to 1,000 jobs, all or none: 201, or 200 if none of them is new."""
        caller = identity_of(request)
        for index, job in enumerate(batch.jobs):
            _check_tenant(caller, job.tenant_id, "body", "jobs", index, "tenant_id")
        service = await self._service()
        jobs = [job.to_new_job() for job in batch.jobs]
        stored = await self._in_time(service.enqueue_many(jobs))
        answer = EnqueueManyResponse.model_validate({"jobs": stored})
        return json_answer(answer, 200 if all(each.deduplicated for each in stored) else 201)

    async def list_jobs(
        self,
        request: Request,
        tenant_id: Name = None,
        use_case: Name = None,
        status: JobStatus | Absent = None,
        limit: Limit = 100,
        cursor: JobId | Absent = None,
        payloads: Flag = False,
    ) -> Response:
        """List jobs, newest first; `next_cursor` of one page is the `cursor` of the next.

        A page looks through 20,000 rows at most. Where few of them match it is not full, perhaps
        empty; `looked_through` says so, and `next_cursor` goes on.
        Payloads and results are left out unless asked for, and then at most 100 jobs are given.
        """
        caller = identity_of(request)
        _check_tenant(caller, tenant_id, "query", "tenant_id")
        if payloads and limit > _MOST_WITH_PAYLOADS:
            most = f"must be at most {_MOST_WITH_PAYLOADS} with payloads"
            raise Refusal(422, ["query", "limit"], "out_of_range", most)
        service = await self._service()
        tenant_id = tenant_id or caller.tenant_id
        page = await self._in_time(
            service.list(
                tenant_id=tenant_id,
                use_case=use_case,
                status=status,
                limit=limit,
                cursor=cursor,
                payloads=payloads,
            )
        )
        return json_answer(JobListView.model_validate(page))

    async def slo(
        self,
        request: Request,
        use_case: Name = None,
        tenant_id: Name = None,
        tenants: Flag = False,
        window: Window = "1h",
    ) -> Response:
        """How promises are kept: error budget, slack, late jobs, slots needed, by use case.

        It tells of the slots that all tenants share: a token bound to one tenant is refused.
        """
        _for_all_tenants(identity_of(request))
        service = await self._service()
        try:
            found = await self._in_time(
                service.slo(use_case, tenant_id=tenant_id, tenants=tenants, window=window)
            )
        except InvalidJob as error:
            raise Refusal(422, ["query", error.field], error.code, error.reason) from error
        return json_answer(SloView.model_validate({"use_cases": found}))

    async def metrics(self, request: Request) -> Response:
        """The same figures of all use cases for Prometheus; not for a token bound to one tenant."""
        _for_all_tenants(identity_of(request))
        service = await self._service()
        text = exposition(await self._in_time(service.figures()))
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def get_job(self, job_id: JobId, request: Request) -> Response:
        """Get one job, whole."""
        tenant_id = identity_of(request).tenant_id
        service = await self._service()
        job = await self._in_time(service.get(job_id, tenant_id=tenant_id))
        return _job(job)

    async def explain(self, job_id: JobId, request: Request) -> Response:
        """Why the job is where it is: every cause, with its figures, the decisive one first.

        To a token bound to one tenant it does not tell who else holds slots.
        """
        tenant_id = identity_of(request).tenant_id
        service = await self._service()
        found = await self._in_time(service.explain(job_id, tenant_id=tenant_id))
        if tenant_id is not None:
            found = found.for_tenant()
        return json_answer(ExplanationView.model_validate(found))

    async def cancel(self, job_id: JobId, request: Request) -> Response:
        """Cancel a pending job at once; ask a running one to end at its next heartbeat.

        It may be repeated; a job that has succeeded or is dead is refused.
        """
        caller = identity_of(request)
        service = await self._service()
        job = await self._in_time(
            service.cancel(job_id, tenant_id=caller.tenant_id, actor=caller.name)
        )
        return _job(job)

    async def requeue(self, job_id: JobId, request: Request) -> Response:
        """Put a finished job back, due now, with three fresh attempts."""
        caller = identity_of(request)
        service = await self._service()
        job = await self._in_time(
            service.requeue(job_id, tenant_id=caller.tenant_id, actor=caller.name)
        )
        return _job(job)

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        return await within(self._within_seconds, work)

    async def _service(self) -> JobService:
        made = self._factory()
        return await made if inspect.isawaitable(made) else made


async def refuse_method() -> None:
    """Raise Refusal: jobs are enqueued by POST."""
    raise Refusal(405, [], "method_not_allowed", "needs POST", headers={"Allow": "POST"})


def _for_all_tenants(caller: Identity) -> None:
    if caller.tenant_id is not None:
        text = "needs a token that is bound to no tenant"
        raise Refusal(403, ["header", "authorization"], "bound_token", text)


def _check_tenant(caller: Identity, asked: str | None, *loc: str | int) -> None:
    """Raise Refusal if *asked* is another tenant than the caller's own."""
    if caller.tenant_id is not None and asked not in (None, caller.tenant_id):
        raise other_tenant(loc)


def refuse_doubtful(endpoint: str) -> Callable[[Request], Coroutine[Any, Any, None]]:
    """A check that raises Refusal for a filter given twice or misspelt: it would show the wrong."""
    known = _FILTERS[endpoint]

    async def check(request: Request) -> None:
        given = [name for name, _ in request.query_params.multi_items()]
        for name in sorted(set(given)):
            if name in known and given.count(name) > 1:
                raise Refusal(422, ["query", name], "given_twice", "may be given once")
            meant = get_close_matches(name[:40].lower(), known, n=1, cutoff=0.7)
            if name not in known and meant:
                reason = f"is not a known filter; did you mean {meant[0]}?"
                raise Refusal(422, ["query", name], "unknown_field", reason)

    return check


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems an endpoint may answer, for the OpenAPI document."""
    return {
        status: {"model": ProblemView, "description": _REFUSALS[status]}
        for status in sorted({401, 403, 422, 503, *statuses})
    }


def _job(job: Job) -> Response:
    return json_answer(JobView.model_validate(job))


def json_answer(answer: BaseModel, status: int = 200) -> Response:
    """Written by the shape itself: FastAPI would check every job of a list a second time."""
    return Response(answer.model_dump_json(), status, media_type="application/json")
