"""Whatever is accepted reads back equal: through JSON text, jsonb and the driver."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from async_jobs.core.acceptance import encode_payload
from async_jobs.core.record import result_json, safe_text
from async_jobs.errors import InvalidJob

texts = st.text(st.characters())
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers()
    | st.floats()
    | texts
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12
)
payloads = st.dictionaries(texts, values, max_size=6)
on_one_database = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def same(sent: Any, read: Any) -> bool:
    """Equal values; numbers are equal if they are the same to a reader of floats."""
    if isinstance(sent, dict):
        return (
            isinstance(read, dict)
            and sent.keys() == read.keys()
            and all(same(value, read[key]) for key, value in sent.items())
        )
    if isinstance(sent, list):
        return isinstance(read, list) and len(sent) == len(read) and all(map(same, sent, read))
    if isinstance(sent, float):
        return isinstance(read, float | int) and float(read) == sent
    return type(sent) is type(read) and bool(sent == read)


def through_jsonb(db: psycopg.Connection[Any], text: str) -> Any:
    row = db.execute("SELECT %s::text::jsonb", [text], binary=True).fetchone()
    assert row is not None
    return row[0]


@on_one_database
@given(payload=payloads)
def test_an_accepted_payload_reads_back_equal(
    db: psycopg.Connection[Any], payload: dict[str, Any]
) -> None:
    try:
        text = encode_payload(payload)
    except InvalidJob:
        return

    assert same(payload, through_jsonb(db, text))


@on_one_database
@given(value=values)
def test_every_result_is_stored_equal_or_as_a_note(db: psycopg.Connection[Any], value: Any) -> None:
    text = result_json(value)
    if text is None:
        assert value is None
        return
    read = through_jsonb(db, text)

    assert same(value, read) or list(read) == ["async_jobs_note"]


@on_one_database
@given(text=texts)
def test_every_safe_text_can_be_stored(db: psycopg.Connection[Any], text: str) -> None:
    safe = safe_text(text, 50)

    assert through_jsonb(db, json.dumps(safe)) == safe
