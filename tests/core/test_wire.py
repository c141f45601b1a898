"""The body of a message, ours and foreign ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.models import Leased, Ticket
from async_jobs.transport import wire

JOB_ID = UUID("01900000-0000-7000-8000-000000000001")
tickets = st.lists(st.tuples(st.uuids(), st.integers(0, 2**63 - 1)), max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def leased(job_id: UUID, lease_seq: int) -> Leased:
    return Leased(
        job_id=job_id,
        lease_seq=lease_seq,
        queue="mail",
        tenant_id="acme",
        type="send",
        deadline_at=datetime(2030, 1, 1, tzinfo=UTC),
        priority=0,
    )


@given(tickets)
def test_what_is_written_is_read(pairs: list[tuple[UUID, int]]) -> None:
    body = wire.write([leased(job_id, lease_seq) for job_id, lease_seq in pairs])

    assert wire.read(body) == [Ticket(job_id, lease_seq) for job_id, lease_seq in pairs]


def test_a_full_message_of_fifty_tickets_is_far_below_what_a_queue_takes() -> None:
    body = wire.write([leased(JOB_ID, 2**63 - 1)] * 50)

    assert len(body) < 4_000
    assert body.isascii()


@pytest.mark.parametrize(
    "body",
    [str(JOB_ID), f'"{JOB_ID}"', f"  {JOB_ID}\n", str(JOB_ID).upper(), JOB_ID.hex, JOB_ID.urn],
)
def test_a_bare_id_opens_whatever_lease_the_job_has(body: str) -> None:
    assert wire.read(body) == [Ticket(JOB_ID, None)]


def test_a_later_version_with_more_keys_is_read() -> None:
    body = json.dumps({"v": 7, "jobs": [[str(JOB_ID), 3]], "trace": {"id": 1}})

    assert wire.read(body) == [Ticket(JOB_ID, 3)]


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "hello",
        '"',
        "[]",
        "null",
        "{",
        "{}",
        '{"jobs": 3}',
        '{"jobs": null}',
        '{"jobs": [3]}',
        '{"jobs": ["ab"]}',
        '{"jobs": [[]]}',
        f'{{"jobs": [["{JOB_ID}"]]}}',
        f'{{"jobs": [["{JOB_ID}", 1, 2]]}}',
        f'{{"jobs": [["{JOB_ID}", -1]]}}',
        f'{{"jobs": [["{JOB_ID}", true]]}}',
        f'{{"jobs": [["{JOB_ID}", "1"]]}}',
        f'{{"jobs": [["{JOB_ID}", 1.0]]}}',
        f'{{"jobs": [["{JOB_ID}", null]]}}',
        f'{{"jobs": [["{JOB_ID}", {2**63}]]}}',
        f'{{"jobs": [["{JOB_ID}", {"9" * 5000}]]}}',
        '{"jobs": [["../../etc/passwd", 1]]}',
        '{"jobs": ' + "[" * 100_000,
        '{"Records": [{"eventSource": "aws:s3"}]}',
        "\ud800",
        "\0",
    ],
    ids=lambda body: body[:24].encode("ascii", "backslashreplace").decode().replace("\0", "NUL"),
)
def test_a_foreign_body_is_refused_without_repeating_it(body: str) -> None:
    with pytest.raises(ValueError, match="the body") as refusal:
        wire.read(body)

    assert "passwd" not in str(refusal.value)
    assert len(str(refusal.value)) < 100


@given(st.text() | json_values.map(lambda value: json.dumps({"v": 1, "jobs": value})))
def test_any_text_is_either_read_or_refused(body: str) -> None:
    try:
        read = wire.read(body)
    except ValueError:
        return
    assert all(isinstance(ticket, Ticket) for ticket in read)
