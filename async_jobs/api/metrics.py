"""What autoscalers ask: `GET /metrics/autoscaling`, as a router for any FastAPI application.

from async_jobs import create_metrics_router
app.include_router(create_metrics_router(job_service_factory=..., expected_auth_token=...))
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from enum import Enum
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response, Security

from async_jobs.access import ApiToken, Scope
from async_jobs.api.auth import ShownBearer, gate_for, identity_of
from async_jobs.api.bounded import ANSWER_WITHIN_SECONDS, within
from async_jobs.api.problems import Refusal
from async_jobs.api.route import route_class
from async_jobs.api.router import (
    JobServiceFactory,
    Name,
    json_answer,
    refusals,
    refuse_doubtful,
)
from async_jobs.core.scaling import LEAD_SECONDS, WITHIN_SECONDS
from async_jobs.schemas import ScalingView

MOST_SLOTS = 10_000
MOST_SECONDS = 86_400

Slots = Annotated[int | None, Query(ge=1, le=MOST_SLOTS)]
Within = Annotated[float, Query(gt=0, le=MOST_SECONDS)]
Lead = Annotated[float, Query(ge=0, le=MOST_SECONDS)]


def create_metrics_router(
    job_service_factory: JobServiceFactory,
    require_auth_token: bool = True,
    expected_auth_token: str | Sequence[str] | None = None,
    *,
    tokens: Sequence[ApiToken] = (),
    prefix: str = "/metrics",
    tags: Sequence[str | Enum] = ("metrics",),
    answer_within_seconds: float = ANSWER_WITHIN_SECONDS,
) -> APIRouter:
    """The router with the figure to scale workers by; arguments as of `create_jobs_router`.

    It needs the scope `read`, of a token that is bound to no tenant.

    Raises ConfigError if a token is required and none, or a blank one, is expected.
    """
    gate = gate_for(expected_auth_token, tokens) if require_auth_token else None
    shown = [] if gate is None else [Security(ShownBearer())]
    router = APIRouter(prefix=prefix, tags=list(tags), dependencies=shown)

    async def autoscaling(
        request: Request,
        use_case: Name = None,
        slots_per_worker: Slots = None,
        within_seconds: Within = WITHIN_SECONDS,
        lead_seconds: Lead = LEAD_SECONDS,
    ) -> Response:
        """Workers needed to keep every promise of the next seconds."""
        if identity_of(request).tenant_id is not None:
            text = "needs a token that is bound to no tenant"
            raise Refusal(403, ["header", "authorization"], "bound_token", text)
        made = job_service_factory()
        service = await made if inspect.isawaitable(made) else made
        asked = service.scaling(
            use_case,
            slots_per_worker=slots_per_worker,
            within_seconds=within_seconds,
            lead_seconds=lead_seconds,
        )
        return json_answer(ScalingView.model_validate(await within(answer_within_seconds, asked)))

    router.add_api_route(
        "/autoscaling",
        autoscaling,
        methods=["GET"],
        response_model=ScalingView,
        responses=refusals(),
        dependencies=[Depends(refuse_doubtful("autoscaling"))],
        route_class_override=route_class(gate, 0, Scope.READ),
    )
    return router
