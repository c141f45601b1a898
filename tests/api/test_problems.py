"""The answers to refusals: short, in one shape, and without what was sent."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from fastapi.exceptions import RequestValidationError

from async_jobs.api.problems import MOST_BYTES, answer_for, fault, problem
from async_jobs.errors import (
    ConfigError,
    DedupeConflict,
    InvalidJob,
    JobNotFound,
    MoveRefused,
    Overloaded,
    QuotaExceeded,
    StoreUnavailable,
    UnknownUseCase,
)

JOB_ID = UUID("018f2f6e-0b7c-7cc1-8a3b-0123456789ab")
ANSWERS = [
    (InvalidJob("payload", "too_deep", "is too deep"), 422, "too_deep"),
    (InvalidJob("payload", "too_large", "is too large"), 413, "too_large"),
    (UnknownUseCase(), 422, "unknown_use_case"),
    (DedupeConflict(JOB_ID), 409, "dedupe_conflict"),
    (QuotaExceeded("t", 1, retry_after_seconds=0.2), 429, "quota_exceeded"),
    (Overloaded("t", "mail", retry_after_seconds=12.5), 429, "overloaded"),
    (JobNotFound(JOB_ID), 404, "job_not_found"),
    (MoveRefused(JOB_ID, "cancel", "dead"), 409, "move_refused"),
    (StoreUnavailable(), 503, "store_unavailable"),
    (RequestValidationError([{"type": "missing", "loc": ("body", "type")}]), 422, "missing"),
    (RequestValidationError([{"type": "new", "loc": ()}]), 422, "invalid_value"),
]


@pytest.mark.parametrize(("error", "status", "code"), ANSWERS, ids=lambda value: str(value)[:30])
def test_every_error_of_a_caller_has_its_answer(error: Exception, status: int, code: str) -> None:
    answer = answer_for(error)

    assert answer is not None
    assert answer.status_code == status
    assert json.loads(bytes(answer.body))["error"] == code


@pytest.mark.parametrize(
    "error",
    [
        QuotaExceeded("t", 1, retry_after_seconds=4.2),
        Overloaded("t", "mail", retry_after_seconds=4.2),
        StoreUnavailable(),
    ],
)
def test_who_should_come_back_is_told_when_in_whole_seconds(error: Exception) -> None:
    answer = answer_for(error)

    assert answer is not None
    assert answer.headers["Retry-After"] in ("5", "2")


@pytest.mark.parametrize("error", [ConfigError(["x"]), RuntimeError("x"), KeyError("x")])
def test_an_error_that_no_caller_caused_has_no_answer(error: Exception) -> None:
    assert answer_for(error) is None


def test_an_answer_is_short_however_many_faults_there_are() -> None:
    answer = problem(422, [fault(["body", "x" * 40] * 20, "code", "m" * 5_000)] * 1_000)

    assert len(bytes(answer.body)) <= MOST_BYTES
    assert json.loads(bytes(answer.body))["error"] == "code"


@pytest.mark.parametrize("name", ["<script>", "a b", "\ud800", "x" * 41, "", "a\n"])
def test_a_place_with_an_odd_name_is_not_named(name: str) -> None:
    assert fault(["body", name, 3], "code", "message").loc == ["body", "...", 3]
