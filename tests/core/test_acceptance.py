"""What is accepted as a job, and how everything else is refused."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from async_jobs.core.acceptance import MAX_DEPTH, MAX_PAYLOAD_BYTES, accept, encode_payload
from async_jobs.errors import InvalidJob
from async_jobs.models import AcceptedJob, BackoffPolicy, BackoffType, NewJob

NOW = datetime(2030, 1, 1, tzinfo=UTC)
EAST, WEST = timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))
TEN_YEARS = timedelta(days=3660)
PLAIN = NewJob(tenant_id="acme", use_case="mail", type="send", payload={})


class NoZone(tzinfo):
    """A zone that does not know its offset: such a datetime counts as naive."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    def dst(self, dt: datetime | None) -> None:
        return None

    def tzname(self, dt: datetime | None) -> str:
        return "nowhere"


def accepted(**changes: Any) -> AcceptedJob:
    return accept(
        replace(PLAIN, **changes),
        job_id=UUID(int=7),
        queue="mail",
        default_tolerance_seconds=60.0,
        now=NOW,
    )


def nested(levels: int, *, lists: bool = False) -> dict[str, Any]:
    """An object of *levels* levels, itself included."""
    value: Any = {}
    for level in range(levels - 1):
        value = [value] if lists and level < levels - 2 else {"a": value}
    return dict(value)


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def circular_beside_an_object() -> dict[str, Any]:
    return {"first": object(), "second": circular()}


REFUSED = [
    ("payload", {"a": "x\0y"}, "payload", "nul_character"),
    ("payload", {"x\0y": 1}, "payload", "nul_character"),
    ("payload", {"a": ["\ud800"]}, "payload", "invalid_unicode"),
    ("payload", {"\udfff": 1}, "payload", "invalid_unicode"),
    ("payload", {"a": math.nan}, "payload", "non_finite_number"),
    ("payload", {"a": [math.inf]}, "payload", "non_finite_number"),
    ("payload", {"a": -math.inf}, "payload", "non_finite_number"),
    ("payload", {"a": 2**63}, "payload", "number_too_large"),
    ("payload", {"a": -(2**63) - 1}, "payload", "number_too_large"),
    ("payload", {"a": [{"b": 10**400}]}, "payload", "number_too_large"),
    ("payload", nested(MAX_DEPTH + 1), "payload", "too_deep"),
    ("payload", nested(MAX_DEPTH + 1, lists=True), "payload", "too_deep"),
    ("payload", nested(900), "payload", "too_deep"),
    ("payload", nested(3_000), "payload", "too_deep"),
    ("payload", nested(100_000), "payload", "too_deep"),
    ("payload", {"a": "x" * MAX_PAYLOAD_BYTES}, "payload", "too_large"),
    ("payload", {"a": "ü" * (MAX_PAYLOAD_BYTES // 2)}, "payload", "too_large"),
    ("payload", [], "payload", "not_an_object"),
    ("payload", "text", "payload", "not_an_object"),
    ("payload", None, "payload", "not_an_object"),
    ("payload", 5, "payload", "not_an_object"),
    ("payload", {"a": object()}, "payload", "not_json"),
    ("payload", {"a": NOW}, "payload", "not_json"),
    ("payload", {"a": {1, 2}}, "payload", "not_json"),
    ("payload", {"a": b"bytes"}, "payload", "not_json"),
    ("payload", {(1, 2): 3}, "payload", "not_json"),
    ("payload", circular(), "payload", "circular"),
    ("payload", circular_beside_an_object(), "payload", "not_json"),
    ("payload", {"a": 10**5000}, "payload", "number_too_large"),
    ("tenant_id", "", "tenant_id", "invalid_name"),
    ("tenant_id", " ", "tenant_id", "invalid_name"),
    ("tenant_id", "a b", "tenant_id", "invalid_name"),
    ("tenant_id", "a\n", "tenant_id", "invalid_name"),
    ("tenant_id", "a\0", "tenant_id", "invalid_name"),
    ("tenant_id", "ä", "tenant_id", "invalid_name"),
    ("tenant_id", "x" * 129, "tenant_id", "invalid_name"),
    ("tenant_id", "x" * 2**20, "tenant_id", "invalid_name"),
    ("tenant_id", None, "tenant_id", "invalid_name"),
    ("tenant_id", 5, "tenant_id", "invalid_name"),
    ("use_case", "", "use_case", "invalid_name"),
    ("type", "__import__('os').system", "type", "invalid_name"),
    ("run_at", datetime(2030, 1, 1), "run_at", "naive_datetime"),  # noqa: DTZ001
    ("run_at", datetime(2030, 1, 1, tzinfo=NoZone()), "run_at", "naive_datetime"),
    ("run_at", "2030-01-01T00:00:00Z", "run_at", "invalid_type"),
    ("run_at", datetime(1, 1, 1, tzinfo=UTC), "run_at", "out_of_range"),
    (
        "run_at",
        datetime.min.replace(tzinfo=EAST),
        "run_at",
        "out_of_range",
    ),
    ("run_at", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), "run_at", "out_of_range"),
    ("run_at", datetime.max.replace(tzinfo=UTC), "run_at", "out_of_range"),
    (
        "run_at",
        datetime.max.replace(tzinfo=WEST),
        "run_at",
        "out_of_range",
    ),
    ("run_at", NOW + timedelta(days=366 * 11), "run_at", "out_of_range"),
    ("delay_tolerance_seconds", -5, "delay_tolerance_seconds", "out_of_range"),
    ("delay_tolerance_seconds", -1e-9, "delay_tolerance_seconds", "out_of_range"),
    ("delay_tolerance_seconds", 10**12, "delay_tolerance_seconds", "out_of_range"),
    ("delay_tolerance_seconds", 10**18, "delay_tolerance_seconds", "out_of_range"),
    ("delay_tolerance_seconds", 10**400, "delay_tolerance_seconds", "out_of_range"),
    ("delay_tolerance_seconds", "60", "delay_tolerance_seconds", "invalid_type"),
    ("delay_tolerance_seconds", True, "delay_tolerance_seconds", "invalid_type"),
    ("delay_tolerance_seconds", math.nan, "delay_tolerance_seconds", "invalid_type"),
    ("delay_tolerance_seconds", math.inf, "delay_tolerance_seconds", "invalid_type"),
    ("timeout_seconds", 0, "timeout_seconds", "out_of_range"),
    ("timeout_seconds", 31 * 86_400, "timeout_seconds", "out_of_range"),
    ("timeout_seconds", 10**400, "timeout_seconds", "out_of_range"),
    ("timeout_seconds", math.nan, "timeout_seconds", "invalid_type"),
    ("timeout_seconds", "5", "timeout_seconds", "invalid_type"),
    ("timeout_seconds", True, "timeout_seconds", "invalid_type"),
    ("max_attempts", 0, "max_attempts", "out_of_range"),
    ("max_attempts", -1, "max_attempts", "out_of_range"),
    ("max_attempts", 1001, "max_attempts", "out_of_range"),
    ("max_attempts", 2**31, "max_attempts", "out_of_range"),
    ("max_attempts", 1.0, "max_attempts", "out_of_range"),
    ("max_attempts", True, "max_attempts", "out_of_range"),
    ("max_attempts", None, "max_attempts", "out_of_range"),
    ("priority", 2**63, "priority", "out_of_range"),
    ("priority", -32_768, "priority", "out_of_range"),
    ("priority", 1.5, "priority", "out_of_range"),
    ("priority", False, "priority", "out_of_range"),
    ("backoff_policy", {"type": "fibonacci"}, "backoff_policy.type", "invalid_backoff_policy"),
    ("backoff_policy", "constant", "backoff_policy", "invalid_backoff_policy"),
    ("dedupe_key", "", "dedupe_key", "invalid_name"),
    ("dedupe_key", " ", "dedupe_key", "invalid_name"),
    ("dedupe_key", "x" * 201, "dedupe_key", "invalid_name"),
    ("dedupe_key", "x" * 10_240, "dedupe_key", "invalid_name"),
    ("dedupe_key", "a\0b", "dedupe_key", "invalid_name"),
    ("dedupe_key", "a\nb", "dedupe_key", "invalid_name"),
    ("dedupe_key", "\ud800", "dedupe_key", "invalid_name"),
    ("dedupe_key", 5, "dedupe_key", "invalid_name"),
]


@pytest.mark.parametrize(
    ("name", "value", "field", "code"),
    REFUSED,
    ids=[f"{number}-{name}-{code}" for number, (name, _, _, code) in enumerate(REFUSED)],
)
def test_what_cannot_be_accepted_is_refused_by_field_and_code(
    name: str, value: Any, field: str, code: str
) -> None:
    with pytest.raises(InvalidJob) as refusal:
        accepted(**{name: value})

    assert (refusal.value.field, refusal.value.code) == (field, code)
    assert len(str(refusal.value)) < 200


ACCEPTED = [
    ("payload", {}),
    ("payload", {"a": 2**63 - 1, "b": -(2**63)}),
    ("payload", {"phone": "1234567890123456789012"}),
    ("payload", {"text": "spelled \\u0000, not meant"}),
    ("payload", nested(MAX_DEPTH)),
    ("payload", nested(MAX_DEPTH, lists=True)),
    ("payload", {"a": [{}] * 500}),
    ("payload", {"a": "x" * (MAX_PAYLOAD_BYTES - len('{"a": ""}'))}),
    ("payload", MappingProxyType({"a": 1})),
    ("payload", {"a": (1, 2)}),
    ("payload", {"Grüße": "🙂 \u2028"}),
    ("tenant_id", "x" * 128),
    ("tenant_id", "Az09._:@/-"),
    ("run_at", datetime(1970, 1, 1, tzinfo=UTC)),
    ("run_at", NOW + TEN_YEARS),
    ("run_at", datetime(2030, 1, 1, 5, 0, 0, 123_456, EAST)),
    ("delay_tolerance_seconds", 0),
    ("delay_tolerance_seconds", 1.5),
    ("delay_tolerance_seconds", TEN_YEARS.total_seconds()),
    ("max_attempts", 1),
    ("max_attempts", 1000),
    ("priority", 32_767),
    ("priority", -32_767),
    ("backoff_policy", {"type": "constant"}),
    ("dedupe_key", "x" * 200),
    ("dedupe_key", "order 7: Größe/🙂"),
]


@pytest.mark.parametrize(
    ("name", "value"), ACCEPTED, ids=[f"{n}-{name}" for n, (name, _) in enumerate(ACCEPTED)]
)
def test_what_lies_just_inside_the_limits_is_accepted(name: str, value: Any) -> None:
    assert accepted(**{name: value}).id == UUID(int=7)


@pytest.mark.parametrize("levels", [900, 100_000])
def test_a_deep_payload_is_refused_quickly(levels: int) -> None:
    payload = nested(levels)
    began = time.process_time()
    with pytest.raises(InvalidJob):
        encode_payload(payload)

    assert time.process_time() - began < 0.1


def test_a_refusal_never_repeats_the_value() -> None:
    with pytest.raises(InvalidJob) as refusal:
        accepted(tenant_id="hunter2 is my password")

    assert "hunter2" not in str(refusal.value)


def test_what_is_left_out_comes_from_the_use_case() -> None:
    job = accepted()

    assert job.delay_tolerance_seconds == 60.0
    assert (job.run_at, job.backoff_json, job.dedupe_key) == (None, None, None)


def test_a_tolerance_of_zero_is_not_left_out() -> None:
    assert accepted(delay_tolerance_seconds=0).delay_tolerance_seconds == 0.0


def test_a_policy_is_stored_as_json_with_every_key() -> None:
    policy = BackoffPolicy(type=BackoffType.LINEAR, base_delay_seconds=5)

    assert accepted(backoff_policy=policy).backoff_json == (
        '{"type": "linear", "base_delay_seconds": 5, "max_delay_seconds": 3600.0, "jitter": 0.1}'
    )


def test_the_size_limit_can_be_set() -> None:
    with pytest.raises(InvalidJob, match="100 bytes"):
        encode_payload({"a": "x" * 100}, 100)


@pytest.mark.parametrize(
    ("run_in", "parent_in", "inherits"),
    [
        (None, 5, True),
        (None, -5, True),
        (3, 5, True),
        (5, 5, True),
        (6, 5, False),
        (-3, -5, True),
        (1, -5, False),
    ],
)
def test_the_parents_deadline_counts_unless_the_job_is_to_run_only_after_it(
    run_in: float | None, parent_in: float, inherits: bool
) -> None:
    parent = NOW + timedelta(seconds=parent_in)
    run_at = None if run_in is None else NOW + timedelta(seconds=run_in)

    job = accepted(run_at=run_at, parent_deadline_at=parent)

    assert job.latest_deadline_at == (parent if inherits else None)


@pytest.mark.parametrize("parent", [5, "soon", NOW.replace(tzinfo=None)])
def test_a_parents_deadline_that_is_no_time_is_refused(parent: Any) -> None:
    with pytest.raises(InvalidJob, match="parent_deadline_at"):
        accepted(parent_deadline_at=parent)
