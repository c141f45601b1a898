"""A whole application around the jobs router, for teams that have none, and its server.

Besides the jobs endpoints it answers `/healthz`, which says that this process
works and nothing else, and its OpenAPI document, which asks for the token like
every other page. Who connects to the database, and how, is the caller's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from socket import socket
from typing import Literal

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from async_jobs.access import ApiToken
from async_jobs.api.auth import gate_for
from async_jobs.api.metrics import create_metrics_router
from async_jobs.api.problems import fault, problem
from async_jobs.api.route import route_class
from async_jobs.api.router import MAX_REQUEST_BYTES, JobServiceFactory, create_jobs_router

DRAIN_SECONDS = 10
_TITLE = "Async Jobs"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_app(
    job_service_factory: JobServiceFactory,
    *,
    require_auth_token: bool,
    expected_auth_token: str | Sequence[str] | None,
    max_payload_bytes: int,
    tokens: Sequence[ApiToken] = (),
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The application; raises ConfigError if a token is required and none is expected."""
    jobs = create_jobs_router(
        job_service_factory,
        require_auth_token,
        expected_auth_token,
        tokens=tokens,
        # A payload of escapes is written with up to six bytes for a character.
        max_request_bytes=max(MAX_REQUEST_BYTES, 4 * max_payload_bytes),
    )
    app = FastAPI(title=_TITLE, lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, _refuse)
    app.include_router(jobs)
    app.include_router(
        create_metrics_router(
            job_service_factory, require_auth_token, expected_auth_token, tokens=tokens
        )
    )
    app.add_api_route("/healthz", health, methods=["GET"], include_in_schema=False)
    gate = gate_for(expected_auth_token, tokens) if require_auth_token else None
    pages = APIRouter(route_class=route_class(gate, 0))
    pages.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
    app.include_router(pages)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """What the framework itself refuses (no such page, another method), in our shape."""
    status = getattr(error, "status_code", 500)
    headers = getattr(error, "headers", None)
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
    return problem(status, [fault([], code, HTTPStatus(status).phrase)], headers=headers)


async def health() -> dict[str, str]:
    """This process answers; whether the database does is told by the endpoints' 503."""
    return {"status": "ok"}


async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    app: FastAPI = request.app
    return JSONResponse(app.openapi())


def _protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    """What reads requests: httptools where it is installed, in a quarter of the time of h11."""
    try:
        from async_jobs.api.protocol import BoundedProtocol
    except ModuleNotFoundError as error:
        if error.name != "httptools":
            raise
        return "h11"
    return BoundedProtocol


async def serve(app: FastAPI, listener: socket, *, log_level: str) -> None:
    """Answer requests until SIGTERM or SIGINT; requests in hand get ten seconds to end."""
    server = uvicorn.Config(
        app,
        log_config=None,  # its records go where ours go
        log_level="debug" if log_level == "DEBUG" else "warning",
        access_log=False,
        http=_protocol(),
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    await uvicorn.Server(server).serve([listener])
