"""A jobs API made up for the purpose: it gives the answers it was told to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2

from async_jobs import AsyncJobsHttpClient, NewJob

JOB_ID = "018f2f6e-0b7c-7cc1-8a3b-0123456789ab"
TOKEN = "the-token-of-the-tests"
ACCEPTED = httpx2.Response(201, json={"job_id": JOB_ID, "deduplicated": False})
AGAIN = httpx2.Response(
    503, json={"error": "store_unavailable", "detail": []}, headers={"Retry-After": "0"}
)


class Server:
    """Gives one answer after the other and keeps the requests."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(
        self,
        base_url: str = "https://jobs.example.com",
        *,
        follow_redirects: bool = False,
        **options: Any,
    ) -> AsyncJobsHttpClient:
        transport = httpx2.MockTransport(self)
        http = httpx2.AsyncClient(transport=transport, follow_redirects=follow_redirects)
        return AsyncJobsHttpClient(base_url, TOKEN, http_client=http, **options)


def new_job(**changes: Any) -> NewJob:
    return NewJob(
        **{"tenant_id": "t", "use_case": "notifications", "type": "x", "payload": {"n": 1}}
        | changes
    )


def job_view(status: str) -> httpx2.Response:
    at = datetime.now(UTC).isoformat()
    job = {
        "id": JOB_ID,
        "tenant_id": "t",
        "use_case": "notifications",
        "type": "x",
        "status": status,
        "payload": {},
        "queue": "notifications",
        "run_at": at,
        "delay_tolerance_seconds": 60,
        "deadline_at": at,
        "priority": 0,
        "attempts": 0,
        "max_attempts": 3,
        "backoff_policy": None,
        "lease_expires_at": None,
        "last_error": None,
        "dedupe_key": None,
        "enqueue_failed": False,
        "created_at": at,
        "updated_at": at,
        "started_at": None,
        "finished_at": None,
        "a_field_of_the_future": 1,
    }
    return httpx2.Response(200, json=job)
