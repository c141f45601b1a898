"""A whole application with nothing but the dashboard, at its root."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from async_jobs.config import AsyncJobsConfig
from async_jobs.dashboard.router import create_dashboard_router
from async_jobs.service import JobService

PREFIX = "/dashboard"


def build_dashboard(service: JobService, config: AsyncJobsConfig, no_auth: bool) -> FastAPI:
    """The application; raises ConfigError if a token is required and none is expected."""
    app = FastAPI(title="Async Jobs", openapi_url=None, docs_url=None, redoc_url=None)
    add_dashboard(app, service, config, no_auth)
    app.add_api_route("/", _home, methods=["GET"])
    app.add_api_route("/healthz", _health, methods=["GET"])
    return app


def add_dashboard(
    app: FastAPI, service: JobService, config: AsyncJobsConfig, no_auth: bool
) -> None:
    """Serve the dashboard at /dashboard, with the tokens of *config*."""
    router = create_dashboard_router(
        lambda: service,
        require_auth_token=not no_auth,
        expected_auth_token=config.enqueue_auth_token,
        tokens=config.api_tokens,
        prefix=PREFIX,
    )
    app.include_router(router)


async def _home() -> RedirectResponse:
    return RedirectResponse(f"{PREFIX}/")


async def _health() -> dict[str, str]:
    return {"status": "ok"}
