"""What a token is good for: its scopes, and the jobs of its tenant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import pytest
from jobs_api import JOB, app_around, caller

from async_jobs import JobService
from async_jobs.access import ApiToken, Scope
from async_jobs.errors import ConfigError
from async_jobs.models import JobStatus
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import Event, OperatorActed

UNKNOWN = UUID("018f2f6e-0b7c-7cc1-8a3b-0123456789ab")
MINE, OTHER = "tenant1", "tenant2"


@dataclass(frozen=True)
class Asked:
    """A request and the scope that it needs."""

    scope: Scope
    method: str
    path: str
    content: Any = None


ASKED = {
    "enqueue": Asked(Scope.ENQUEUE, "POST", "/jobs/enqueue", JOB),
    "enqueue-many": Asked(Scope.ENQUEUE, "POST", "/jobs/enqueue-many", {"jobs": [JOB]}),
    "list": Asked(Scope.READ, "GET", "/jobs/"),
    "list without a slash": Asked(Scope.READ, "GET", "/jobs"),
    "slo": Asked(Scope.READ, "GET", "/jobs/slo"),
    "get": Asked(Scope.READ, "GET", f"/jobs/{UNKNOWN}"),
    "metrics": Asked(Scope.READ, "GET", "/jobs/metrics"),
    "explain": Asked(Scope.READ, "GET", f"/jobs/{UNKNOWN}/explain"),
    "cancel": Asked(Scope.OPERATE, "POST", f"/jobs/{UNKNOWN}/cancel"),
    "requeue": Asked(Scope.OPERATE, "POST", f"/jobs/{UNKNOWN}/requeue"),
}


def token(*scopes: Scope, tenant_id: str | None = None) -> ApiToken:
    name = "-".join(scopes) or "all"
    return ApiToken.for_text(
        f"{name} {tenant_id}", name=name, scopes=scopes or list(Scope), tenant_id=tenant_id
    )


def shown(*scopes: Scope, tenant_id: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {'-'.join(scopes) or 'all'} {tenant_id}"}


TOKENS = [
    *(token(scope) for scope in Scope),
    token(Scope.ENQUEUE, Scope.READ),
    *(token(tenant_id=tenant) for tenant in (None, MINE, OTHER)),
]


def api_of(service: JobService) -> httpx2.AsyncClient:
    return caller(app_around(service, tokens=TOKENS))


@pytest.mark.parametrize(
    "scopes", [(scope,) for scope in Scope] + [(Scope.ENQUEUE, Scope.READ), ()], ids="+".join
)
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
async def test_an_endpoint_is_open_to_its_scope_alone(
    service: JobService, asked: Asked, scopes: tuple[Scope, ...]
) -> None:
    async with api_of(service) as api:
        answer = await api.request(
            asked.method, asked.path, json=asked.content, headers=shown(*scopes)
        )

    if asked.scope in (scopes or Scope):
        assert answer.status_code in (200, 201, 404)
    else:
        assert answer.status_code == 403
        assert answer.json()["error"] == "insufficient_scope"
        assert f'scope="{asked.scope}"' in answer.headers["www-authenticate"]


async def test_a_scope_is_checked_before_the_content_is_read(service: JobService) -> None:
    async with api_of(service) as api:
        answer = await api.post(
            "/jobs/enqueue", content=b"x" * 2_000_000, headers=shown(Scope.READ)
        )

    assert answer.status_code == 403


async def test_every_endpoint_of_the_document_stands_in_the_matrix(service: JobService) -> None:
    paths = app_around(service).openapi()["paths"]
    known = {(each.method, each.path.replace(str(UNKNOWN), "{job_id}")) for each in ASKED.values()}

    documented = {(method.upper(), path) for path, found in paths.items() for method in found}

    assert documented <= known


@pytest.mark.parametrize("tenant_id", [OTHER, "nobody"])
@pytest.mark.parametrize(
    ("path", "content", "loc"),
    [
        ("enqueue", lambda job: job, ["body", "tenant_id"]),
        ("enqueue-many", lambda job: {"jobs": [JOB, job]}, ["body", "jobs", 1, "tenant_id"]),
    ],
)
async def test_a_bound_token_enqueues_for_its_tenant_only(
    service: JobService,
    path: str,
    content: Callable[[object], object],
    loc: list[str | int],
    tenant_id: str,
) -> None:
    async with api_of(service) as api:
        asked = content(JOB | {"tenant_id": tenant_id})
        answer = await api.post(f"/jobs/{path}", json=asked, headers=shown(tenant_id=MINE))

    assert answer.status_code == 403
    assert answer.json()["error"] == "other_tenant"
    assert answer.json()["detail"][0]["loc"] == loc
    assert not (await service.list()).jobs


async def test_a_bound_token_lists_its_tenants_jobs_only(service: JobService) -> None:
    mine = (await service.enqueue(**JOB)).job_id
    await service.enqueue(**JOB | {"tenant_id": OTHER})

    async with api_of(service) as api:
        listed = await api.get("/jobs/", headers=shown(tenant_id=MINE))
        named = await api.get(f"/jobs/?tenant_id={MINE}", headers=shown(tenant_id=MINE))
        after = await api.get(
            f"/jobs/?cursor={'f' * 8}-ffff-7fff-8fff-{'f' * 12}", headers=shown(tenant_id=MINE)
        )

    for answer in (listed, named, after):
        assert [each["id"] for each in answer.json()["jobs"]] == [str(mine)]


@pytest.mark.parametrize("tenant_id", [OTHER, "nobody"])
async def test_a_bound_token_cannot_ask_for_another_tenants_list(
    service: JobService, tenant_id: str
) -> None:
    await service.enqueue(**JOB | {"tenant_id": OTHER})

    async with api_of(service) as api:
        answer = await api.get(f"/jobs/?tenant_id={tenant_id}", headers=shown(tenant_id=MINE))

    assert answer.status_code == 403
    assert answer.json()["error"] == "other_tenant"


async def test_a_bound_token_does_not_see_the_slots_that_all_tenants_share(
    service: JobService,
) -> None:
    async with api_of(service) as api:
        answer = await api.get("/jobs/slo", headers=shown(tenant_id=MINE))

    assert (answer.status_code, answer.json()["error"]) == (403, "bound_token")


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.CANCELLED])
@pytest.mark.parametrize(
    ("method", "move"),
    [("GET", ""), ("GET", "/explain"), ("POST", "/cancel"), ("POST", "/requeue")],
)
async def test_another_tenants_job_is_answered_like_none(
    service: JobService, method: str, move: str, status: JobStatus
) -> None:
    job_id = (await service.enqueue(**JOB | {"tenant_id": OTHER})).job_id
    if status is JobStatus.CANCELLED:
        await service.cancel(job_id)
    before = await service.get(job_id)

    async with api_of(service) as api:
        other = await api.request(method, f"/jobs/{job_id}{move}", headers=shown(tenant_id=MINE))
        none = await api.request(method, f"/jobs/{UNKNOWN}{move}", headers=shown(tenant_id=MINE))
        own = await api.get(f"/jobs/{job_id}", headers=shown(tenant_id=OTHER))

    assert other.status_code == 404
    assert (other.status_code, other.content, other.headers) == (
        none.status_code,
        none.content,
        none.headers,
    )
    assert own.status_code == 200
    assert await service.get(job_id) == before


async def test_a_bound_token_operates_on_its_own_jobs(service: JobService) -> None:
    job_id = (await service.enqueue(**JOB)).job_id

    async with api_of(service) as api:
        cancelled = await api.post(f"/jobs/{job_id}/cancel", headers=shown(tenant_id=MINE))
        requeued = await api.post(f"/jobs/{job_id}/requeue", headers=shown(tenant_id=MINE))

    assert cancelled.json()["status"] == "cancelled"
    assert requeued.json()["status"] == "pending"


async def test_what_an_operator_did_is_told_with_the_tokens_name(service: JobService) -> None:
    heard: list[Event] = []
    audited = JobService(service._config, service._store, bus=Bus(heard.append))
    job_id = (await audited.enqueue(**JOB)).job_id

    async with api_of(audited) as api:
        await api.post(f"/jobs/{job_id}/cancel", headers=shown(Scope.OPERATE))
        await api.post(f"/jobs/{job_id}/cancel", headers=shown(Scope.OPERATE))
        await api.post(f"/jobs/{job_id}/requeue", headers=shown(tenant_id=MINE))

    acted = [event for event in heard if isinstance(event, OperatorActed)]
    assert [(each.move, each.actor, each.job_id) for each in acted] == [
        ("cancel", "operate", job_id),
        ("requeue", "all", job_id),
    ]


async def test_the_one_token_is_good_for_everything_beside_the_others(service: JobService) -> None:
    async with api_of(service) as api:
        answers = [
            await api.request(each.method, each.path, json=each.content) for each in ASKED.values()
        ]

    assert {answer.status_code for answer in answers} <= {200, 201, 404}


def test_a_router_with_tokens_needs_no_single_one(service: JobService) -> None:
    assert app_around(service, tokens=TOKENS, expected_auth_token=None)


@pytest.mark.parametrize(
    "options",
    [
        {"tokens": TOKENS, "expected_auth_token": " "},
        {"tokens": TOKENS, "expected_auth_token": []},
        {"tokens": ["a text"]},
        {"tokens": [*TOKENS, ApiToken.for_text("all None", name="twice")]},
    ],
    ids=["blank", "none", "a text", "twice"],
)
def test_a_router_with_doubtful_tokens_is_not_made(
    service: JobService, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        app_around(service, **options)
