"""Who gets in: whoever shows the token. Everybody else gets one and the same answer."""

from __future__ import annotations

import pytest
from fastapi import APIRouter
from jobs_api import JOB, TOKEN, app_around, caller

from async_jobs import JobService, create_jobs_router
from async_jobs.errors import ConfigError

ENDPOINTS = [
    ("POST", "/jobs/enqueue"),
    ("POST", "/jobs/enqueue-many"),
    ("GET", "/jobs/"),
    ("GET", "/jobs"),
    ("GET", "/jobs/?limit=x"),
    ("GET", "/jobs/018f2f6e-0b7c-7cc1-8a3b-0123456789ab"),
    ("GET", "/jobs/malformed"),
    ("POST", "/jobs/018f2f6e-0b7c-7cc1-8a3b-0123456789ab/cancel"),
    ("POST", "/jobs/018f2f6e-0b7c-7cc1-8a3b-0123456789ab/requeue"),
]
WRONG_HEADERS: dict[str, list[tuple[bytes, bytes]]] = {
    "no header": [],
    "empty": [(b"Authorization", b"")],
    "scheme alone": [(b"Authorization", b"Bearer")],
    "scheme and a space": [(b"Authorization", b"Bearer ")],
    "no scheme": [(b"Authorization", TOKEN.encode())],
    "another scheme": [(b"Authorization", b"Basic " + TOKEN.encode())],
    "another token": [(b"Authorization", b"Bearer x")],
    "lower case and another token": [(b"Authorization", b"bearer x")],
    "a part of the token": [(b"Authorization", b"Bearer " + TOKEN[:-1].encode())],
    "the token and more": [(b"Authorization", b"Bearer " + TOKEN.encode() + b"x")],
    "the token and another word": [(b"Authorization", b"Bearer " + TOKEN.encode() + b" x")],
    "not ASCII": [(b"Authorization", "Bearer tök".encode())],
    "not UTF-8": [(b"Authorization", b"Bearer \xff\xfe")],
    "1 MB": [(b"Authorization", b"Bearer " + b"x" * 1_000_000)],
    "the token, then 1 MB of blanks": [
        (b"Authorization", b"Bearer " + TOKEN.encode() + b" " * 1_000_000)
    ],
    "two headers, both right": [(b"Authorization", f"Bearer {TOKEN}".encode())] * 2,
    "two headers, one right": [
        (b"Authorization", b"Bearer x"),
        (b"Authorization", f"Bearer {TOKEN}".encode()),
    ],
    "another header": [(b"X-Authorization", f"Bearer {TOKEN}".encode())],
}


@pytest.fixture
def database(shared_database: str) -> str:
    """Nothing is written here but by callers who may."""
    return shared_database


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_every_endpoint_asks_for_the_token(
    service: JobService, method: str, path: str
) -> None:
    async with caller(app_around(service)) as api:
        del api.headers["Authorization"]
        answer = await api.request(method, path, content=b"not even JSON")

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_everybody_without_the_token_gets_the_same_answer(service: JobService) -> None:
    async with caller(app_around(service)) as api:
        del api.headers["Authorization"]
        answers = {
            name: await api.post("/jobs/enqueue", json=JOB, headers=headers)
            for name, headers in WRONG_HEADERS.items()
        }

    assert {name: one.status_code for name, one in answers.items()} == dict.fromkeys(answers, 401)
    assert len({one.content for one in answers.values()}) == 1
    assert TOKEN not in answers["empty"].text


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
async def test_the_scheme_may_be_written_in_any_case(service: JobService, header: str) -> None:
    async with caller(app_around(service)) as api:
        answer = await api.get("/jobs/", headers={"Authorization": header})

    assert answer.status_code == 200


@pytest.mark.parametrize("token", ["new", "old"])
async def test_two_tokens_are_valid_during_a_rotation(service: JobService, token: str) -> None:
    app = app_around(service, expected_auth_token=["new", "old"])
    async with caller(app) as api:
        answer = await api.get("/jobs/", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 200


async def test_a_token_beyond_ascii_works(service: JobService) -> None:
    app = app_around(service, expected_auth_token="schlüssel")
    async with caller(app) as api:
        answer = await api.get("/jobs/", headers={b"Authorization": "Bearer schlüssel".encode()})

    assert answer.status_code == 200


async def test_a_line_break_behind_the_expected_token_does_not_lock_everybody_out(
    service: JobService,
) -> None:
    async with caller(app_around(service, expected_auth_token=f"{TOKEN}\n")) as api:
        answer = await api.get("/jobs/")

    assert answer.status_code == 200


async def test_nothing_is_asked_for_where_no_token_is_required(service: JobService) -> None:
    app = app_around(service, require_auth_token=False, expected_auth_token=None)
    async with caller(app) as api:
        answer = await api.get("/jobs/", headers={"Authorization": "Bearer x"})

    assert answer.status_code == 200


@pytest.mark.parametrize("expected", [None, "", "  \n", [], ["token", ""], ["token", None]])
def test_a_router_without_a_token_to_expect_is_not_made(expected: object) -> None:
    with pytest.raises(ConfigError, match="ASYNC_JOBS_ENQUEUE_AUTH_TOKEN"):
        create_jobs_router(unused_factory, True, expected)  # type: ignore[arg-type] # that is it


def test_the_token_is_asked_for_unless_told_otherwise() -> None:
    with pytest.raises(ConfigError):
        create_jobs_router(unused_factory)


def test_the_factory_and_the_token_may_be_given_by_position() -> None:
    router = create_jobs_router(unused_factory, True, TOKEN)

    assert isinstance(router, APIRouter)


async def test_the_token_is_checked_before_the_content_is_read(service: JobService) -> None:
    async with caller(app_around(service)) as api:
        answer = await api.post(
            "/jobs/enqueue", content=b"x" * 2_000_000, headers={"Authorization": "Bearer x"}
        )

    assert answer.status_code == 401


def unused_factory() -> JobService:
    raise AssertionError("called")
