"""What a refused request is answered: errors in, a status and a short JSON text out.

    {"error": code, "detail": [{"loc": [...], "code": ..., "message": ...}]}

The text is at most 2 KiB and never repeats what was sent, so nothing secret or
harmful comes back through it. `answer_for` knows every error that a caller can
cause, and the database's absence; any other error is a fault of ours and stays
an exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import HTTPException, Response
from fastapi.exceptions import RequestValidationError

from async_jobs.access import Scope
from async_jobs.errors import (
    AsyncJobsError,
    DeadlineInfeasible,
    DedupeConflict,
    InvalidJob,
    JobIdTaken,
    JobNotFound,
    MoveRefused,
    Overloaded,
    QuotaExceeded,
    StoreUnavailable,
)
from async_jobs.schemas import ProblemDetail, ProblemView

MOST_BYTES = 2_048
STORE_RETRY_AFTER_SECONDS = 2
Loc = Sequence[str | int]

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.-]{1,40}", re.ASCII)
_DEEPEST_LOC = 6

# What pydantic calls a fault → our code, and what is needed.
_FAULTS = {
    "missing": ("missing", "is required"),
    "extra_forbidden": ("unknown_field", "is not a known field"),
    "too_many_fields": ("unknown_field", "has more fields than a job can have"),
    "string_type": ("invalid_type", "must be a text"),
    "string_unicode": ("invalid_unicode", "holds a lone surrogate"),
    "string_pattern_mismatch": (
        "invalid_name",
        "must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ / -",
    ),
    "int_type": ("invalid_type", "must be a whole number"),
    "int_parsing": ("invalid_type", "must be a whole number"),
    "int_parsing_size": ("out_of_range", "is beyond every number that is allowed"),
    "int_from_float": ("invalid_type", "must be a whole number"),
    "bool_type": ("invalid_type", "must be true or false"),
    "float_type": ("invalid_type", "must be a number"),
    "finite_number": ("non_finite_number", "must be a finite number"),
    "dict_type": ("not_an_object", "must be a JSON object"),
    "model_type": ("not_an_object", "must be a JSON object"),
    "model_attributes_type": ("not_an_object", "must be a JSON object"),
    "list_type": ("invalid_type", "must be a list"),
    "too_long": ("too_many", "has too many entries"),
    "greater_than_equal": ("out_of_range", "is smaller than allowed"),
    "less_than_equal": ("out_of_range", "is larger than allowed"),
    "enum": ("unknown_status", "must be pending, running, succeeded, dead or cancelled"),
    "invalid_time": (
        "invalid_time",
        "must be a time as ISO 8601 text with a zone, for example 2030-01-31T12:00:00Z",
    ),
    "invalid_uuid": ("invalid_uuid", "must be a UUID such as 018f2f6e-0b7c-7cc1-8a3b-0123456789ab"),
}
_TAKEN = (
    "is taken by another job, or by this one with another tenant_id, use_case, type, payload or "
    "dedupe_key; take a new random UUID for a new job"
)
_ANY_FAULT = ("invalid_value", "cannot be accepted")


class Refusal(HTTPException):
    """A request refused before it reached an endpoint."""

    def __init__(
        self,
        status: int,
        loc: Loc,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status_code=status, detail=message, headers=headers)
        self.fault = fault(loc, code, message)


def answer_for(error: Exception) -> Response | None:
    """The answer to a request that ended in *error*; None if the caller did not cause it."""
    match error:
        case Refusal():
            return problem(error.status_code, [error.fault], headers=error.headers)
        case RequestValidationError():
            return problem(422, _faults_of(error.errors()))
        case InvalidJob():
            status = 413 if error.code == "too_large" else 422
            return problem(status, [fault(_loc_of(error), error.code, error.reason)])
        case AsyncJobsError():
            return _answer_for_state(error)
        case _:
            return None


def _answer_for_state(error: AsyncJobsError) -> Response | None:
    """The answers that depend on what is stored, not on the request alone."""
    text = str(error)
    match error:
        case DedupeConflict():
            conflict = fault(["body", "dedupe_key"], "dedupe_conflict", text)
            return problem(409, [conflict], job_id=error.job_id)
        case JobIdTaken():
            taken = fault(["body", "job_id"], "job_id_taken", _TAKEN)
            return problem(409, [taken], job_id=error.job_id)
        case DeadlineInfeasible():
            late = fault(_place_of(error, "delay_tolerance_seconds"), "deadline_infeasible", text)
            return problem(409, [late], predicted_start_at=error.predicted_start_at)
        case QuotaExceeded():
            full = fault(["body", "tenant_id"], "quota_exceeded", text)
            return problem(429, [full], headers=_retry_after(error.retry_after_seconds))
        case Overloaded():
            above = fault(["body", "tenant_id"], "overloaded", text)
            return problem(429, [above], headers=_retry_after(error.retry_after_seconds))
        case JobNotFound():
            missing = fault(["path", "job_id"], "job_not_found", "There is no such job.")
            return problem(404, [missing])
        case MoveRefused():
            refused = fault(["path", "job_id"], "move_refused", text)
            return problem(409, [refused], job_id=error.job_id)
        case StoreUnavailable():
            absent = fault([], "store_unavailable", text)
            return problem(503, [absent], headers=_retry_after(STORE_RETRY_AFTER_SECONDS))
        case _:
            return None


def unauthorized() -> Response:
    """The one answer to everybody who does not show the token, for whatever reason."""
    shown = fault(
        ["header", "authorization"], "unauthorized", "needs Authorization: Bearer and the token"
    )
    return problem(401, [shown], headers={"WWW-Authenticate": "Bearer"})


def forbidden(scope: Scope) -> Response:
    """The answer to a caller whose token is good, but not for this endpoint."""
    lacking = fault(
        ["header", "authorization"], "insufficient_scope", f"needs a token with the scope {scope}"
    )
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    return problem(403, [lacking], headers={"WWW-Authenticate": challenge})


def other_tenant(loc: Loc) -> Refusal:
    """The refusal of a tenant other than the token's own, whether there is such a one or not."""
    return Refusal(403, loc, "other_tenant", "is not the tenant that this token is bound to")


def problem(
    status: int,
    faults: Sequence[ProblemDetail],
    *,
    job_id: UUID | None = None,
    predicted_start_at: datetime | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """As many of *faults* as fit into the answer; the first one gives it its code."""
    for most in range(len(faults[:8]), 0, -1):
        view = ProblemView(
            error=faults[0].code,
            detail=list(faults[:most]),
            job_id=job_id,
            predicted_start_at=predicted_start_at,
        )
        content = view.model_dump_json(exclude_none=True).encode()
        if len(content) <= MOST_BYTES:
            break
    return Response(content, status, dict(headers or {}), media_type="application/json")


def fault(loc: Loc, code: str, message: str) -> ProblemDetail:
    """One fault; a place is named only by plain words, for its names come from the caller too."""
    return ProblemDetail(
        loc=[_plain(part) for part in loc[:_DEEPEST_LOC]], code=code, message=message[:600]
    )


def _faults_of(errors: Iterable[Mapping[str, Any]]) -> list[ProblemDetail]:
    return [
        fault(error["loc"], *_FAULTS.get(error["type"], _ANY_FAULT))
        for error, _ in zip(errors, range(8), strict=False)
    ]


def _loc_of(error: InvalidJob) -> Loc:
    return _place_of(error, *error.field.split("."))


def _place_of(error: InvalidJob | DeadlineInfeasible, *field: str) -> Loc:
    jobs = () if error.index is None else ("jobs", error.index)
    return ("body", *jobs, *field)


def _plain(part: object) -> str | int:
    if isinstance(part, int) or (isinstance(part, str) and _PLAIN_WORD.fullmatch(part)):
        return part
    return "..."


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
