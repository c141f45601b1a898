"""AsyncJobsHttpClient: enqueue and follow jobs of another process over HTTP.

    checked    a job is checked by the same rules as on the server, before anything is sent
               (which use cases exist, and how large a payload may be, only the server knows)
    repeated   only what is safe to repeat: reading and enqueueing, for which the client itself
               chooses the job's id; anything else only if no connection was made. With jitter,
               not before the server's Retry-After, and for so long in all
    secret     the token goes to the given address only: never along a redirect, never in a
               repr, and over plain http only to this machine

Every other answer than the one asked for is raised as ApiError. No driver and no
server framework is imported here.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload
from uuid import UUID

import httpx2
from pydantic import BaseModel, ValidationError

from async_jobs.config import is_loopback
from async_jobs.core.acceptance import accept
from async_jobs.errors import ApiError, ConfigError, InvalidJob
from async_jobs.models import JobFields, JobStatus, NewJob, new_job_id
from async_jobs.schemas import (
    MOST_JOBS_PER_REQUEST,
    EnqueueManyResponse,
    EnqueueResponse,
    JobListView,
    JobView,
    ProblemView,
)
from async_jobs.telemetry.traces import headers as trace_headers

FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0
MOST_OWN_WAIT_SECONDS = 3.0
_NOT_SENT = "no_connection"
_PASSING_STATUSES = (429, 502, 503, 504)
_ANY_PAYLOAD_BYTES = 1 << 40
_NO_JOB_ID = UUID(int=0)

Answer = TypeVar("Answer", bound=BaseModel)


class AsyncJobsHttpClient:
    """A client of the jobs API at *base_url*, to be closed: `async with` or `aclose()`.

    *timeout_seconds* bounds each request, *give_up_after_seconds* a call with all it repeats. A
    given *http_client* is used as it is, and its owner closes it. *prefix* is the one the server's
    router was made with. Methods raise ApiError, and InvalidJob before anything is sent.

    Raises ConfigError for an address that is none, and for a token that would travel over plain
    http to another machine, unless *allow_insecure* says that the network is trusted.
    """

    def __init__(
        self,
        base_url: str,
        auth_token: str | None = None,
        *,
        timeout_seconds: float = 10,
        give_up_after_seconds: float = 30,
        http_client: httpx2.AsyncClient | None = None,
        prefix: str = "/jobs",
        allow_insecure: bool = False,
    ) -> None:
        insecure_fits = allow_insecure or auth_token is None
        url = _checked_url(base_url, insecure_fits=insecure_fits)
        self._jobs_url = url.rstrip("/") + prefix
        self._headers = _headers(auth_token)
        self._auth = httpx2.USE_CLIENT_DEFAULT if auth_token is None else None
        self._timeout_seconds = timeout_seconds
        self._give_up_after_seconds = give_up_after_seconds
        self._http = http_client or httpx2.AsyncClient()
        self._owns_http = http_client is None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._jobs_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a given *http_client*."""
        if self._owns_http:
            await self._http.aclose()

    @overload
    async def enqueue(self, new: NewJob, /) -> UUID: ...

    @overload
    async def enqueue(self, /, **fields: Unpack[JobFields]) -> UUID: ...

    async def enqueue(self, new: NewJob | None = None, /, **fields: Any) -> UUID:
        """Enqueue one job, a NewJob or its fields; its id, or that of its unfinished twin.

        The job gets an id here unless it has one, so that the request may be sent again. After an
        ApiError without a status it may have been stored: to call again safely, give it a job_id
        or a dedupe_key.
        """
        job = NewJob(**fields) if new is None else new
        return (await self.enqueue_and_forecast(job)).job_id

    async def enqueue_and_forecast(self, new: NewJob) -> EnqueueResponse:
        """As `enqueue`, with the whole answer: also when the job is predicted to start.

        A job with `reject_if_infeasible` that would be late is an ApiError with the status 409,
        the code `deadline_infeasible` and its `predicted_start_at`; it was not stored.
        """
        return await self._ask(
            EnqueueResponse,
            "POST",
            "/enqueue",
            content=_json(_described(_with_id(new))),
            repeatable=True,
        )

    async def enqueue_many(self, jobs: Sequence[NewJob]) -> Sequence[UUID]:
        """Enqueue all of *jobs* (at most 1,000) or none; their ids in the same order."""
        if len(jobs) > MOST_JOBS_PER_REQUEST:
            raise InvalidJob("jobs", "too_many", f"must be at most {MOST_JOBS_PER_REQUEST} jobs")
        described = []
        for index, job in enumerate(jobs):
            try:
                described.append(_described(_with_id(job)))
            except InvalidJob as error:
                error.index = index
                raise
        answer = await self._ask(
            EnqueueManyResponse,
            "POST",
            "/enqueue-many",
            content=_json({"jobs": described}),
            repeatable=True,
        )
        return [each.job_id for each in answer.jobs]

    async def get(self, job_id: UUID | str) -> JobView:
        """One job, whole."""
        return await self._ask(JobView, "GET", _place(job_id), repeatable=True)

    async def list(
        self,
        *,
        tenant_id: str | None = None,
        use_case: str | None = None,
        status: JobStatus | str | None = None,
        limit: int = 100,
        cursor: UUID | str | None = None,
        payloads: bool = False,
    ) -> JobListView:
        """Jobs newest first; pass a page's `next_cursor` as *cursor* for the next page.

        Go on until it is None, not until a page is short: see `looked_through`.
        With *payloads* at most 100 of them, payload and result included.
        """
        wanted = {
            "tenant_id": tenant_id,
            "use_case": use_case,
            "status": None if status is None else str(status),
            "limit": str(limit),
            "cursor": None if cursor is None else str(cursor),
            "payloads": "true" if payloads else None,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return await self._ask(JobListView, "GET", "/", query=given, repeatable=True)

    async def wait(
        self,
        job_id: UUID | str,
        *,
        timeout_seconds: float = 60.0,
        poll_interval_seconds: float = 0.5,
    ) -> JobView:
        """The job once it is finished, however it ended; TimeoutError if that takes too long.

        The job goes on regardless: giving up waiting cancels nothing.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            job = await self.get(job_id)
            if job.is_finished:
                return job
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"Job {job.id} is still {job.status} after {timeout_seconds:g} s. Wait "
                    "longer, or see whether a scheduler and a worker for its queue are running."
                )
            await asyncio.sleep(min(poll_interval_seconds, left))

    async def cancel(self, job_id: UUID | str) -> JobView:
        """Cancel a pending job, ask a running one to end; a cancelled one is given as it is."""
        return await self._ask(JobView, "POST", _place(job_id) + "/cancel", repeatable=True)

    async def requeue(self, job_id: UUID | str) -> JobView:
        """Put a finished job back, due now."""
        return await self._ask(JobView, "POST", _place(job_id) + "/requeue")

    async def _ask(
        self,
        shape: type[Answer],
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: bytes | None = None,
        repeatable: bool = False,
    ) -> Answer:
        """Send until there is an answer that counts, or repeating is of no use any more."""
        give_up_at = time.monotonic() + self._give_up_after_seconds
        for send in count(1):
            left = max(0.001, give_up_at - time.monotonic())
            request = self._http.build_request(
                method,
                self._jobs_url + path,
                params=query,
                content=content,
                headers={**trace_headers(), **self._headers},
                timeout=min(self._timeout_seconds, left),
            )
            try:
                return await self._send(shape, request, min(self._timeout_seconds, left))
            except ApiError as error:
                wait_seconds = wait_before(send, error.retry_after_seconds, random.random())
                passing = error.status is None or error.status in _PASSING_STATUSES
                fits = error.code == _NOT_SENT or (repeatable and passing)
                if not fits or wait_seconds is None:
                    raise
                if time.monotonic() + wait_seconds >= give_up_at:
                    raise
            await asyncio.sleep(wait_seconds)
        raise AssertionError("unreachable")

    async def _send(
        self, shape: type[Answer], request: httpx2.Request, timeout_seconds: float
    ) -> Answer:
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._http.send(request, auth=self._auth, follow_redirects=False)
        except httpx2.TransportError as error:
            text = f"{self._jobs_url} cannot be reached ({type(error).__name__}); is the API up?"
            raise ApiError(None, _code_of(error), text) from error
        except TimeoutError as error:
            text = f"no answer within {timeout_seconds:g} s from {self._jobs_url}"
            raise ApiError(None, "timeout", text) from error
        if not response.is_success:
            raise _refusal(response)
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            text = f"{self._jobs_url} answered something else than a jobs API does; check base_url"
            raise ApiError(response.status_code, "unexpected_answer", text) from error


def _code_of(error: httpx2.TransportError) -> str:
    """Whether anything may have reached the server: only then the request may have been obeyed."""
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return _NOT_SENT
    return "timeout" if isinstance(error, httpx2.TimeoutException) else "connection_lost"


def wait_before(sends: int, retry_after_seconds: float | None, chance: float) -> float | None:
    """Seconds to wait after *sends* sends; None if the server asks for more than is sensible.

    *chance* is uniform in [0, 1): callers that failed together must not come back together.
    """
    if retry_after_seconds is None:
        grown = FIRST_WAIT_SECONDS * 2 ** min(sends - 1, 10)
        return float(min(grown, MOST_OWN_WAIT_SECONDS) * (0.5 + chance))
    if retry_after_seconds > LONGEST_WAIT_SECONDS:
        return None
    return retry_after_seconds * (1 + chance / 4)


def _checked_url(base_url: str, *, insecure_fits: bool) -> str:
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, TypeError):
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ConfigError(["base_url: is no address; pass one such as https://jobs.example.com"])
    if url.userinfo:
        raise ConfigError(
            ["base_url: holds a user name or password; leave it out and pass auth_token"]
        )
    if url.scheme == "http" and not insecure_fits and not is_loopback(url.host):
        raise ConfigError(
            [
                "base_url: plain http would show the token to the network; use https, or pass "
                "allow_insecure=True if the network between the two is trusted"
            ]
        )
    return str(url)


def _headers(auth_token: str | None) -> dict[bytes, bytes]:
    headers = {b"Content-Type": b"application/json", b"Accept": b"application/json"}
    if auth_token is None:
        return headers
    token = auth_token.strip()
    if not token or not token.isprintable():
        raise ConfigError(
            ["auth_token: is blank or holds a line break; pass the token alone, or None"]
        )
    return headers | {b"Authorization": b"Bearer " + token.encode()}


def _place(job_id: UUID | str) -> str:
    try:
        return f"/{UUID(str(job_id))}"
    except ValueError:
        raise InvalidJob("job_id", "invalid_uuid", "must be a UUID, as enqueue gave it") from None


def _with_id(new: NewJob) -> NewJob:
    return new if new.job_id is not None else replace(new, job_id=new_job_id())


def _described(new: NewJob) -> dict[str, Any]:
    """The job as JSON-able fields, after the check; what was not said stays unsaid."""
    accepted = accept(
        new,
        job_id=_NO_JOB_ID,
        queue="",
        default_tolerance_seconds=0.0,
        now=datetime.now(UTC),
        max_payload_bytes=_ANY_PAYLOAD_BYTES,
    )
    fields = {
        "tenant_id": accepted.tenant_id,
        "use_case": accepted.use_case,
        "type": accepted.type,
        "payload": dict(new.payload),
        "queue": new.queue,
        "run_at": _time(accepted.run_at),
        "delay_tolerance_seconds": new.delay_tolerance_seconds,
        "max_attempts": accepted.max_attempts,
        "backoff_policy": json.loads(accepted.backoff_json or "null"),
        "dedupe_key": accepted.dedupe_key,
        "priority": accepted.priority,
        "parent_deadline_at": _time(new.parent_deadline_at),
        "reject_if_infeasible": accepted.reject_if_infeasible or None,
        "job_id": str(accepted.id) if accepted.has_chosen_id else None,
        "timeout_seconds": accepted.timeout_seconds,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _refusal(response: httpx2.Response) -> ApiError:
    """The error of an answer that is no success."""
    status = response.status_code
    retry_after = response.headers.get("retry-after", "")
    if response.is_redirect:
        text = "the server redirects, and the token does not go along; pass the final base_url"
        return ApiError(status, "redirected", text)
    try:
        problem = ProblemView.model_validate_json(response.content)
    except ValidationError:
        return ApiError(status, "http_error", f"the server answered {status} {_phrase(response)}")
    faults = (f"{'.'.join(map(str, one.loc))}: {one.message}" for one in problem.detail)
    return ApiError(
        status,
        problem.error,
        "; ".join(faults),
        retry_after_seconds=float(retry_after) if retry_after.isdecimal() else None,
        predicted_start_at=problem.predicted_start_at,
    )


def _phrase(response: httpx2.Response) -> str:
    return response.reason_phrase or "without a reason"
