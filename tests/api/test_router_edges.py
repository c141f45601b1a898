"""What lies just within what is allowed is accepted, and stored as it was sent."""

from __future__ import annotations

import json

import httpx2
import pytest
from jobs_api import AS_JSON, job, nested, raw

ACCEPTED = {
    "byte order mark": b"\xef\xbb\xbf" + job(),
    "payload of 100 levels": nested(100),
    "the largest integers": raw('{"a": [9223372036854775807, -9223372036854775808]}'),
    "payload as large as allowed": job(payload={"a": "x" * (262_144 - 9)}),
    "payload with every kind of text": job(payload={"": "\u2028 ü 😀 \\u0000 \x1b"}),
    "type that this process does not know": job(
        type="__import__('os').system".replace("'", "").replace("(", ".").replace(")", "")
    ),
    "tolerance 0": job(delay_tolerance_seconds=0),
    "tolerance a fraction": job(delay_tolerance_seconds=1.5),
    "run_at far east": job(run_at="2026-11-24T12:00:00.123456+14:00"),
    "run_at at an offset of almost a day": job(run_at="2026-11-24T12:00:00-23:59"),
    "parent's deadline long ago and far west": job(parent_deadline_at="0001-01-01T00:00:00-23:59"),
    "parent's deadline long ago and far east": job(parent_deadline_at="0001-01-01T00:00:00+23:59"),
    "parent's deadline at the end of time": job(parent_deadline_at="9999-12-31T23:59:59-23:59"),
    "run_at in lower case": job(run_at="2026-11-24t12:00:00z"),
    "run_at in 1970": job(run_at="1970-01-01T00:00:00Z"),
    "queue by the name of the use case": job(queue="notifications"),
    "use case with a dash": job(use_case="message-labeling"),
}


@pytest.mark.parametrize("content", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_a_job_at_the_edge_of_what_is_allowed_is_stored_as_it_is(
    api: httpx2.AsyncClient, content: bytes
) -> None:
    answer = await api.post("/jobs/enqueue", content=content, headers=AS_JSON)
    stored = await api.get(f"/jobs/{answer.json()['job_id']}")

    assert answer.status_code == 201
    assert stored.json()["payload"] == json.loads(content.decode("utf-8-sig"))["payload"]


async def test_a_time_is_stored_to_the_microsecond_and_shown_in_utc(
    api: httpx2.AsyncClient,
) -> None:
    content = job(run_at="2026-11-24T12:00:00.123456+14:00", delay_tolerance_seconds=0.5)

    job_id = (await api.post("/jobs/enqueue", content=content, headers=AS_JSON)).json()["job_id"]
    stored = (await api.get(f"/jobs/{job_id}")).json()

    assert stored["run_at"] == "2026-11-23T22:00:00.123456Z"
    assert stored["deadline_at"] == "2026-11-23T22:00:00.623456Z"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_may_be_announced_in_any_usual_way(api: httpx2.AsyncClient, kind: str) -> None:
    answer = await api.post("/jobs/enqueue", content=job(), headers={"Content-Type": kind})

    assert answer.status_code == 201
