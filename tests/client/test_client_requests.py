"""What the client sends, repeats and refuses, against answers made up for the purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest
from answering import ACCEPTED, AGAIN, JOB_ID, TOKEN, Server, job_view, new_job

from async_jobs import AsyncJobsHttpClient
from async_jobs.client import wait_before
from async_jobs.errors import ApiError, ConfigError, InvalidJob
from async_jobs.models import BackoffPolicy, JobStatus


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits take no time and are written down."""
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("async_jobs.client.asyncio.sleep", pause)
    return waits


async def test_a_job_is_sent_with_its_token_and_only_what_was_said() -> None:
    server = Server(ACCEPTED)

    job_id = await server.client().enqueue(new_job())

    sent = server.requests[0]
    assert job_id == UUID(JOB_ID)
    assert str(sent.url) == "https://jobs.example.com/jobs/enqueue"
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"
    asked = json.loads(sent.content)
    assert UUID(asked.pop("job_id")).version == 7
    assert asked == {
        "tenant_id": "t",
        "use_case": "notifications",
        "type": "x",
        "payload": {"n": 1},
        "max_attempts": 3,
        "priority": 0,
    }


async def test_everything_that_was_said_is_sent() -> None:
    server = Server(ACCEPTED)
    at = datetime(2030, 1, 31, 12, tzinfo=UTC)

    await server.client().enqueue(
        tenant_id="t",
        use_case="notifications",
        type="x",
        payload={"n": "ü"},
        queue="notifications",
        run_at=at,
        delay_tolerance_seconds=0,
        backoff_policy=BackoffPolicy(base_delay_seconds=1.5),
        dedupe_key="k",
        priority=-1,
    )

    sent = json.loads(server.requests[0].content)
    assert sent["payload"] == {"n": "ü"}
    assert sent["queue"] == "notifications"
    assert datetime.fromisoformat(sent["run_at"]) == at
    assert sent["delay_tolerance_seconds"] == 0
    assert sent["backoff_policy"]["base_delay_seconds"] == 1.5
    assert (sent["dedupe_key"], sent["priority"]) == ("k", -1)


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": {"a": "\0"}},
        {"payload": {"a": float("nan")}},
        {"payload": []},
        {"tenant_id": ""},
        {"max_attempts": 0},
        {"max_attempts": True},
        {"priority": 2**63},
        {"delay_tolerance_seconds": "60"},
        {"delay_tolerance_seconds": 10**400},
        {"run_at": datetime(2030, 1, 1)},  # noqa: DTZ001 # without a zone on purpose
        {"backoff_policy": {"type": "fibonacci"}},
        {"dedupe_key": ""},
    ],
)
async def test_a_job_that_cannot_be_accepted_is_never_sent(changes: dict[str, Any]) -> None:
    server = Server()

    with pytest.raises(InvalidJob) as refused:
        await server.client().enqueue(new_job(**changes))

    assert refused.value.field.partition(".")[0] in changes
    assert server.requests == []


async def test_a_refused_job_of_a_batch_is_named() -> None:
    with pytest.raises(InvalidJob, match=r"jobs\[1\]\.max_attempts") as refused:
        await Server().client().enqueue_many([new_job(), new_job(max_attempts=0)])

    assert refused.value.index == 1


async def test_a_batch_gives_the_ids_in_its_order() -> None:
    others = [UUID(int=n) for n in range(1, 4)]
    answer = {"jobs": [{"job_id": str(each), "deduplicated": False} for each in others]}
    server = Server(httpx2.Response(201, json=answer))

    ids = await server.client().enqueue_many([new_job()] * 3)

    assert list(ids) == others


async def test_a_batch_beyond_a_thousand_is_not_sent() -> None:
    with pytest.raises(InvalidJob, match="1000"):
        await Server().client().enqueue_many([new_job()] * 1_001)


Call = Callable[[AsyncJobsHttpClient], Any]

REPEATED: dict[str, Call] = {
    "get": lambda client: client.get(JOB_ID),
    "list": lambda client: client.list(),
    "enqueue": lambda client: client.enqueue(new_job()),
    "a batch": lambda client: client.enqueue_many([new_job(dedupe_key="k"), new_job()]),
    "cancel": lambda client: client.cancel(JOB_ID),
}
SENT_ONCE: dict[str, Call] = {
    "requeue": lambda client: client.requeue(JOB_ID),
}
NOT_SENT = {
    "refused": httpx2.ConnectError("x"),
    "slow to connect": httpx2.ConnectTimeout("x"),
    "none free": httpx2.PoolTimeout("x"),
}
AMBIGUOUS = {
    "503": AGAIN,
    "502": httpx2.Response(502),
    "time-out": httpx2.ReadTimeout("x"),
    "cut": httpx2.ReadError("x"),
    "reset": httpx2.WriteError("x"),
    "half an answer": httpx2.RemoteProtocolError("x"),
}


@pytest.mark.parametrize("call", REPEATED.values(), ids=REPEATED.keys())
@pytest.mark.parametrize(
    "answer", [*NOT_SENT.values(), *AMBIGUOUS.values()], ids=[*NOT_SENT, *AMBIGUOUS]
)
async def test_what_is_safe_to_repeat_is_repeated_word_for_word(
    call: Call, answer: Any, no_pause: list[float]
) -> None:
    server = Server(answer, answer, answer, httpx2.Response(404))

    with pytest.raises(ApiError, match="404"):
        await call(server.client())

    assert len(no_pause) == 3
    assert len({(request.url, request.content) for request in server.requests}) == 1


@pytest.mark.parametrize("call", SENT_ONCE.values(), ids=SENT_ONCE.keys())
@pytest.mark.parametrize("answer", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_may_have_been_obeyed_already_is_sent_once(call: Call, answer: Any) -> None:
    server = Server(answer)

    with pytest.raises(ApiError):
        await call(server.client())

    assert len(server.requests) == 1


@pytest.mark.parametrize("call", SENT_ONCE.values(), ids=SENT_ONCE.keys())
@pytest.mark.parametrize("answer", NOT_SENT.values(), ids=NOT_SENT.keys())
async def test_what_reached_nobody_is_sent_again(
    call: Call, answer: Any, no_pause: list[float]
) -> None:
    server = Server(answer, job_view("cancelled"))

    job = await call(server.client())

    assert job.status is JobStatus.CANCELLED


async def test_repeating_ends_in_time(no_pause: list[float]) -> None:
    server = Server(*[AGAIN] * 3, *[httpx2.ConnectError("x")] * 1_000)
    client = server.client(give_up_after_seconds=0.05)

    with pytest.raises(ApiError, match="cannot be reached"):
        await client.enqueue(new_job())

    assert len(server.requests) < 1_000


async def test_a_wait_that_would_end_too_late_is_not_begun(no_pause: list[float]) -> None:
    later = httpx2.Response(
        503, json={"error": "store_unavailable", "detail": []}, headers={"Retry-After": "5"}
    )
    server = Server(later)

    with pytest.raises(ApiError) as refused:
        await server.client(give_up_after_seconds=4).enqueue(new_job())

    assert refused.value.status == 503
    assert no_pause == []


async def test_a_job_keeps_the_id_that_its_caller_chose() -> None:
    server = Server(ACCEPTED)

    await server.client().enqueue(new_job(job_id=UUID(JOB_ID)))

    assert json.loads(server.requests[0].content)["job_id"] == JOB_ID


async def test_the_answer_after_a_passing_fault_counts(no_pause: list[float]) -> None:
    server = Server(AGAIN, ACCEPTED)

    job_id = await server.client().enqueue(new_job(dedupe_key="k"))

    assert str(job_id) == JOB_ID


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500])
async def test_an_answer_that_will_not_change_is_not_asked_for_twice(status: int) -> None:
    server = Server(httpx2.Response(status))

    with pytest.raises(ApiError) as refused:
        await server.client().get(JOB_ID)

    assert refused.value.status == status
    assert len(server.requests) == 1


async def test_a_server_that_asks_for_a_long_wait_is_not_waited_for() -> None:
    later = httpx2.Response(
        429, json={"error": "quota_exceeded", "detail": []}, headers={"Retry-After": "3600"}
    )
    server = Server(later)

    with pytest.raises(ApiError) as refused:
        await server.client().get(JOB_ID)

    assert refused.value.retry_after_seconds == 3600
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("sends", "retry_after_seconds", "chance", "expected"),
    [
        (1, None, 0.0, 0.1),
        (1, None, 1.0, 0.3),
        (2, None, 0.5, 0.4),
        (50, None, 0.5, 3.0),
        (1, 0.0, 0.9, 0.0),
        (1, 4.0, 0.0, 4.0),
        (1, 4.0, 1.0, 5.0),
        (1, 31.0, 0.0, None),
    ],
)
def test_waits_grow_and_are_never_shorter_than_asked_for(
    sends: int, retry_after_seconds: float | None, chance: float, expected: float | None
) -> None:
    assert wait_before(sends, retry_after_seconds, chance) == pytest.approx(expected)


async def test_a_problem_is_told_as_the_server_told_it() -> None:
    detail = [{"loc": ["body", "priority"], "code": "out_of_range", "message": "must be small"}]
    server = Server(httpx2.Response(422, json={"error": "out_of_range", "detail": detail}))

    with pytest.raises(ApiError, match=r"body\.priority: must be small") as refused:
        await server.client().enqueue(new_job())

    assert (refused.value.status, refused.value.code) == (422, "out_of_range")


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"", b"[1]"])
async def test_an_answer_of_something_else_than_a_jobs_api_is_told(content: bytes) -> None:
    server = Server(httpx2.Response(200, content=content))

    with pytest.raises(ApiError, match="base_url"):
        await server.client().get(JOB_ID)


@pytest.mark.parametrize("place", ["https://elsewhere.example.com/", "/jobs/", "http://x"])
async def test_the_token_never_goes_along_a_redirect(place: str) -> None:
    server = Server(httpx2.Response(307, headers={"Location": place}))

    with pytest.raises(ApiError) as refused:
        await server.client(follow_redirects=True).get(JOB_ID)

    assert refused.value.code == "redirected"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "base_url", ["http://jobs.example.com", "http://10.0.0.1:8000", "http://127.0.0.1.example.com"]
)
def test_a_token_does_not_travel_over_plain_http(base_url: str) -> None:
    with pytest.raises(ConfigError, match="allow_insecure=True"):
        AsyncJobsHttpClient(base_url, TOKEN)


@pytest.mark.parametrize(
    ("base_url", "options"),
    [
        ("http://localhost:8000", {"auth_token": TOKEN}),
        ("http://127.0.0.1:8000", {"auth_token": TOKEN}),
        ("http://[::1]:8000", {"auth_token": TOKEN}),
        ("http://api:8000", {"auth_token": TOKEN, "allow_insecure": True}),
        ("http://api:8000", {}),
    ],
)
async def test_plain_http_is_accepted_where_it_shows_nothing(
    base_url: str, options: dict[str, Any]
) -> None:
    async with AsyncJobsHttpClient(base_url, **options) as client:
        assert base_url in repr(client)


@pytest.mark.parametrize(
    "base_url", ["", "jobs.Zq7", "ftp://Zq7", "https://", "https://u:Zq7@x", "https://x?a=Zq7"]
)
def test_an_address_that_is_none_is_refused_without_repeating_it(base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as refused:
        AsyncJobsHttpClient(base_url, TOKEN)

    assert "Zq7" not in str(refused.value)


@pytest.mark.parametrize("token", ["", "  ", "a\nb"])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="auth_token"):
        AsyncJobsHttpClient("https://jobs.example.com", token)


async def test_the_token_is_in_no_representation_and_no_error() -> None:
    client = Server(httpx2.ReadError("x")).client()

    with pytest.raises(ApiError) as refused:
        await client.requeue(JOB_ID)

    assert TOKEN not in repr(client)
    assert TOKEN not in str(refused.value)


async def test_waiting_ends_when_the_job_has_finished() -> None:
    server = Server(job_view("pending"), job_view("running"), job_view("dead"))

    job = await server.client().wait(JOB_ID, timeout_seconds=60, poll_interval_seconds=0)

    assert job.status is JobStatus.DEAD


async def test_waiting_ends_when_its_time_is_over() -> None:
    server = Server(job_view("pending"))

    with pytest.raises(TimeoutError, match="still pending"):
        await server.client().wait(JOB_ID, timeout_seconds=0)


async def test_a_malformed_job_id_is_never_sent() -> None:
    with pytest.raises(InvalidJob, match="job_id"):
        await Server().client().get("../../admin")


async def test_the_filters_of_a_list_are_sent_as_the_api_names_them() -> None:
    server = Server(httpx2.Response(200, json={"jobs": [], "next_cursor": JOB_ID}))

    page = await server.client().list(
        tenant_id="t", status=JobStatus.DEAD, limit=5, cursor=UUID(JOB_ID)
    )

    assert dict(server.requests[0].url.params) == {
        "tenant_id": "t",
        "status": "dead",
        "limit": "5",
        "cursor": JOB_ID,
    }
    assert page.next_cursor == UUID(JOB_ID)


async def test_a_given_http_client_stays_open() -> None:
    http = httpx2.AsyncClient()
    async with AsyncJobsHttpClient("https://jobs.example.com", http_client=http):
        pass

    assert not http.is_closed
    await http.aclose()
