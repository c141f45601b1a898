"""What the API answers to what it cannot accept: never 500, nothing written, nothing repeated."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from jobs_api import AS_JSON, JOB, job, nested, raw

from async_jobs import JobService

ECHO = "Zq7"  # stands in what is sent and may not stand in the answer
LIMIT = 1024 * 1024


@pytest.fixture
def database(shared_database: str) -> str:
    """One for all: what is refused leaves nothing behind."""
    return shared_database


def backoff(**policy: Any) -> bytes:
    return job(backoff_policy={"type": "constant", "base_delay_seconds": 1} | policy)


REFUSED = {
    "NUL in a payload": (raw(r'{"a": "Zq7\u0000"}'), 422, "nul_character"),
    "NUL in a key": (raw(r'{"Zq7\u0000": 1}'), 422, "nul_character"),
    "NUL three levels down": (raw(r'{"a": [{"b": "\u0000"}]}'), 422, "nul_character"),
    "lone surrogate": (raw(r'{"a": "Zq7\ud800"}'), 422, "invalid_unicode"),
    "lone surrogate in a key": (raw(r'{"Zq7\udfff": 1}'), 422, "invalid_unicode"),
    "NaN": (raw('{"a": NaN}'), 422, "non_finite_number"),
    "Infinity": (raw('{"a": Infinity}'), 422, "non_finite_number"),
    "-Infinity": (raw('{"a": [-Infinity]}'), 422, "non_finite_number"),
    "1e400": (raw('{"a": 1e400}'), 422, "non_finite_number"),
    "integer beyond 64 bits": (raw('{"a": 9223372036854775808}'), 422, "number_too_large"),
    "integer of 400 digits": (raw('{"a": -' + "9" * 400 + "}"), 422, "number_too_large"),
    "integer of 5,000 digits": (raw('{"a": ' + "9" * 5_000 + "}"), 422, "invalid_json"),
    "101 levels": (nested(101), 422, "too_deep"),
    "900 levels": (nested(900), 422, "too_deep"),
    "3,000 levels": (nested(3_000), 422, "too_deep"),
    "100,000 levels": (nested(100_000), 422, "too_deep"),
    "100,000 open brackets": (b"[" * 100_000, 422, "too_deep"),
    "payload a byte too large": (job(payload={"a": "x" * (262_144 - 8)}), 413, "too_large"),
    "request of 2 MB": (job(payload={"a": "x" * 2_000_000}), 413, "too_large"),
    "request of 20 MB": (job(payload={"a": "x" * 20_000_000}), 413, "too_large"),
    "payload a list": (job(payload=[ECHO]), 422, "not_an_object"),
    "payload a text": (job(payload=ECHO), 422, "not_an_object"),
    "payload null": (job(payload=None), 422, "not_an_object"),
    "payload a number": (job(payload=7), 422, "not_an_object"),
    "nothing": (b"", 422, "invalid_json"),
    "no JSON": (b"hello Zq7", 422, "invalid_json"),
    "invalid UTF-8": (b'{"a": "\xff\xfe"}', 422, "invalid_json"),
    "UTF-16": (job().decode().encode("utf-16"), 422, "invalid_json"),
    "duplicate keys": (b'{"type": "Zq7", ' + job()[1:], 422, "invalid_json"),
    "duplicate keys in the payload": (raw('{"a": 1, "a": 2}'), 422, "invalid_json"),
    "a list": (b"[]", 422, "not_an_object"),
    "null": (b"null", 422, None),
    "unknown field": (job(tennant=ECHO), 422, "unknown_field"),
    "unknown field with an odd name": (job(**{"Zq7\ud800 <b>": 1}), 422, "invalid_unicode"),
    "100,000 unknown fields": (
        job(**{f"Zq7{n}": 1 for n in range(60_000)}),
        422,
        "unknown_field",
    ),
    "tenant missing": (json.dumps({"type": ECHO}).encode(), 422, "missing"),
    "tenant empty": (job(tenant_id=""), 422, "invalid_name"),
    "tenant blank": (job(tenant_id="  "), 422, "invalid_name"),
    "tenant of 129 characters": (job(tenant_id="a" * 129), 422, "invalid_name"),
    "tenant of almost 1 MB": (job(tenant_id=ECHO * 300_000), 422, "invalid_name"),
    "tenant with a line break": (job(tenant_id="Zq7\n"), 422, "invalid_name"),
    "tenant a number": (job(tenant_id=7), 422, "invalid_type"),
    "type with a space": (job(type="Zq7 x"), 422, "invalid_name"),
    "use case unknown": (job(use_case=ECHO), 422, "unknown_use_case"),
    "queue unknown": (job(queue="https://Zq7.example.com/q"), 422, "unknown_queue"),
    "run_at without a zone": (job(run_at="2026-11-24T12:00:00"), 422, "naive_datetime"),
    "run_at at second 60": (job(run_at="2026-12-31T23:59:60Z"), 422, "invalid_time"),
    "run_at a number": (job(run_at=1_800_000_000), 422, "invalid_time"),
    "run_at a word": (job(run_at="Zq7"), 422, "invalid_time"),
    "run_at in year 1": (job(run_at="0001-01-01T00:00:00+14:00"), 422, "out_of_range"),
    "run_at in 1969": (job(run_at="1969-12-31T23:59:59Z"), 422, "out_of_range"),
    "run_at in 9999": (job(run_at="9999-12-31T23:59:59-14:00"), 422, "out_of_range"),
    "run_at in eleven years": (job(run_at="2037-12-01T00:00:00Z"), 422, "out_of_range"),
    "tolerance negative": (job(delay_tolerance_seconds=-5), 422, "out_of_range"),
    "tolerance 10^12": (job(delay_tolerance_seconds=10**12), 422, "out_of_range"),
    "tolerance 10^18": (job(delay_tolerance_seconds=10**18), 422, "out_of_range"),
    "tolerance 10^400": (job(delay_tolerance_seconds=10**400), 422, None),
    "tolerance NaN": (job(delay_tolerance_seconds=float("nan")), 422, "non_finite_number"),
    "tolerance a text": (job(delay_tolerance_seconds="60"), 422, "invalid_type"),
    "tolerance true": (job(delay_tolerance_seconds=True), 422, "invalid_type"),
    "attempts 0": (job(max_attempts=0), 422, "out_of_range"),
    "attempts -1": (job(max_attempts=-1), 422, "out_of_range"),
    "attempts 2^31": (job(max_attempts=2**31), 422, "out_of_range"),
    "attempts 10^400": (job(max_attempts=10**400), 422, "out_of_range"),
    "attempts 1.0": (job(max_attempts=1.0), 422, "invalid_type"),
    "attempts true": (job(max_attempts=True), 422, "invalid_type"),
    "priority 2^63": (job(priority=2**63), 422, "out_of_range"),
    "priority -2^31-1": (job(priority=-(2**31) - 1), 422, "out_of_range"),
    "priority 32768": (job(priority=32_768), 422, "out_of_range"),
    "priority 1.5": (job(priority=1.5), 422, "invalid_type"),
    "backoff unknown": (backoff(type="fibonacci"), 422, "invalid_backoff_policy"),
    "backoff type a list": (backoff(type=[ECHO]), 422, "invalid_backoff_policy"),
    "backoff base negative": (backoff(base_delay_seconds=-1), 422, "invalid_backoff_policy"),
    "backoff base above max": (backoff(max_delay_seconds=0.5), 422, "invalid_backoff_policy"),
    "backoff base 10^400": (backoff(base_delay_seconds=10**400), 422, "invalid_backoff_policy"),
    "backoff base NaN": (
        backoff(base_delay_seconds=float("nan")),
        422,
        "invalid_backoff_policy",
    ),
    "backoff with more keys": (backoff(Zq7=1), 422, "invalid_backoff_policy"),
    "backoff without a type": (job(backoff_policy={}), 422, "invalid_backoff_policy"),
    "backoff a text": (job(backoff_policy=ECHO), 422, "not_an_object"),
    "dedupe_key empty": (job(dedupe_key=""), 422, "invalid_name"),
    "dedupe_key of 10 KB": (job(dedupe_key=ECHO * 3_000), 422, "invalid_name"),
    "dedupe_key with NUL": (job(dedupe_key="Zq7\0"), 422, "invalid_name"),
}


@pytest.mark.parametrize(("content", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_job_that_cannot_be_accepted_is_refused(
    api: httpx2.AsyncClient, service: JobService, content: bytes, status: int, code: str | None
) -> None:
    answer = await api.post("/jobs/enqueue", content=content, headers=AS_JSON)

    assert_is_problem(answer, status, code)
    assert not (await service.list()).jobs


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "json",
        "application/json; charset=utf-16",
        "application/json;charset=latin-1",
    ],
)
async def test_only_json_is_accepted(api: httpx2.AsyncClient, kind: str) -> None:
    answer = await api.post("/jobs/enqueue", content=job(), headers={"Content-Type": kind})

    assert_is_problem(answer, 415, "unsupported_media_type")


async def test_compressed_content_is_refused_and_not_unpacked(api: httpx2.AsyncClient) -> None:
    headers = AS_JSON | {"Content-Encoding": "gzip"}
    answer = await api.post("/jobs/enqueue", content=gzip.compress(job()), headers=headers)

    assert_is_problem(answer, 415, "unsupported_media_type")
    assert answer.json()["detail"][0]["loc"] == ["header", "content-encoding"]


@pytest.mark.parametrize("declared", [None, "10", "-1", "x"])
async def test_reading_stops_at_the_limit_whatever_was_declared(
    api: httpx2.AsyncClient, declared: str | None
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 65_536
            yield b" " * 65_536

    headers = AS_JSON | ({"Content-Length": declared} if declared else {})
    answer = await api.post("/jobs/enqueue", content=endless(), headers=headers)

    assert_is_problem(answer, 413, "too_large")
    assert sent <= LIMIT + 2 * 65_536


async def test_a_request_declared_too_large_is_not_read_at_all(api: httpx2.AsyncClient) -> None:
    reads = 0

    async def content() -> AsyncIterator[bytes]:
        nonlocal reads
        reads += 1
        yield b"x"

    headers = AS_JSON | {"Content-Length": str(LIMIT + 1)}
    answer = await api.post("/jobs/enqueue", content=content(), headers=headers)

    assert_is_problem(answer, 413, "too_large")
    assert reads == 0


BATCHES = {
    "no list": (b'{"jobs": {}}', "invalid_type", ["body", "jobs"]),
    "no jobs": (b"{}", "missing", ["body", "jobs"]),
    "a job too many": (
        json.dumps({"jobs": [JOB] * 1_001}).encode(),
        "too_many",
        ["body", "jobs"],
    ),
    "a wrong shape": (
        json.dumps({"jobs": [JOB, JOB | {"priority": ECHO}]}).encode(),
        "invalid_type",
        ["body", "jobs", 1, "priority"],
    ),
    "a wrong value": (
        json.dumps({"jobs": [JOB, JOB, JOB | {"max_attempts": 0}]}).encode(),
        "out_of_range",
        ["body", "jobs", 2, "max_attempts"],
    ),
}


@pytest.mark.parametrize(("content", "code", "loc"), BATCHES.values(), ids=BATCHES.keys())
async def test_a_batch_with_one_fault_is_refused_whole_and_says_which_job_it_was(
    api: httpx2.AsyncClient,
    service: JobService,
    content: bytes,
    code: str,
    loc: list[str | int],
) -> None:
    answer = await api.post("/jobs/enqueue-many", content=content, headers=AS_JSON)

    assert_is_problem(answer, 422, code)
    assert answer.json()["detail"][0]["loc"] == loc
    assert not (await service.list()).jobs


MALFORMED_IDS = [
    "Zq7",
    "%00",
    "1",
    "{018f2f6e-0b7c-7cc1-8a3b-0123456789ab}",
    "Zq7" * 300,
    "urn:uuid:018f2f6e-0b7c-7cc1-8a3b-0123456789ab",
    "018f2f6e-0b7c-7cc1-8a3b-0123456789ab%00",
    "%ff",
    "018f2f6e0b7c7cc18a3b0123456789ab",
]


@pytest.mark.parametrize("job_id", MALFORMED_IDS)
@pytest.mark.parametrize(
    ("method", "move"), [("GET", ""), ("POST", "/cancel"), ("POST", "/requeue")]
)
async def test_a_malformed_job_id_is_refused(
    api: httpx2.AsyncClient, job_id: str, method: str, move: str
) -> None:
    answer = await api.request(method, f"/jobs/{job_id}{move}")

    assert_is_problem(answer, 422, "invalid_uuid")


@pytest.mark.parametrize(
    "job_id",
    [
        "018f2f6e-0b7c-7cc1-8a3b-0123456789ab",
        "018F2F6E-0B7C-7CC1-8A3B-0123456789AB",
        "00000000-0000-0000-0000-000000000000",
    ],
)
@pytest.mark.parametrize(
    ("method", "move"), [("GET", ""), ("POST", "/cancel"), ("POST", "/requeue")]
)
async def test_an_unknown_job_is_not_found(
    api: httpx2.AsyncClient, job_id: str, method: str, move: str
) -> None:
    answer = await api.request(method, f"/jobs/{job_id}{move}")

    assert_is_problem(answer, 404, "job_not_found")


FILTERS = {
    "limit=0": "out_of_range",
    "limit=-1": "out_of_range",
    "limit=1001": "out_of_range",
    "limit=100000000000000000000": None,
    "limit=1e3": "invalid_type",
    "limit=1_0": "invalid_type",
    "limit=5.0": "invalid_type",
    "limit=%2B5": "invalid_type",
    "limit=%205": "invalid_type",
    "limit=%D9%A1%D9%A2": "invalid_type",
    "limit=101&payloads=true": "out_of_range",
    "payloads=1": "invalid_type",
    "payload=true": "unknown_field",
    "LIMIT=5": "unknown_field",
    "use_case=%ff": "invalid_name",
    "limit=": "invalid_type",
    "limit=" + "9" * 5_000: None,
    "limit=1&limit=2": "given_twice",
    "status=Zq7": "unknown_status",
    "status=": "unknown_status",
    "tenant_id=%00": "invalid_name",
    "tenant_id=": "invalid_name",
    "tenant_id=a&tenant_id=b": "given_twice",
    "use_case=%22": "invalid_name",
    "tenant=Zq7": "unknown_field",
    "tennant_id=Zq7": "unknown_field",
    "cursor=Zq7": "invalid_uuid",
    "cursor=": "invalid_uuid",
}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("filters", "code"), FILTERS.items(), ids=[name[:30] for name in FILTERS])
async def test_a_filter_that_would_list_the_wrong_jobs_is_refused(
    api: httpx2.AsyncClient, slash: str, filters: str, code: str | None
) -> None:
    answer = await api.get(f"/jobs{slash}?{filters}")

    assert_is_problem(answer, 422, code)


SLO_FILTERS = {
    "window=Zq7": ("unknown_window", "window"),
    "window=": ("unknown_window", "window"),
    "window=1h&window=5m": ("given_twice", "window"),
    "use_case=Zq7": ("unknown_use_case", "use_case"),
    "use_case=": ("invalid_name", "use_case"),
    "tenant_id=%00": ("invalid_name", "tenant_id"),
    "tenants=yes": ("invalid_type", "tenants"),
    "tenant=Zq7": ("unknown_field", "tenant"),
}


@pytest.mark.parametrize(("filters", "expected"), SLO_FILTERS.items(), ids=SLO_FILTERS.keys())
async def test_a_filter_of_the_slo_record_that_cannot_be_used_is_refused(
    api: httpx2.AsyncClient, filters: str, expected: tuple[str, str]
) -> None:
    answer = await api.get(f"/jobs/slo?{filters}")

    assert_is_problem(answer, 422, expected[0])
    assert answer.json()["detail"][0]["loc"] == ["query", expected[1]]


def assert_is_problem(answer: httpx2.Response, status: int, code: str | None) -> None:
    problem = answer.json()

    assert answer.status_code == status
    assert code in (None, problem["error"])
    assert problem["error"] == problem["detail"][0]["code"]
    assert all(set(one) == {"loc", "code", "message"} for one in problem["detail"])
    assert ECHO not in answer.text
    assert len(answer.content) <= 2_048
