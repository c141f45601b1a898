"""Each named constraint of the table, attacked with plain SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

VALID = {
    "tenant_id": "'acme'",
    "use_case": "'mail'",
    "type": "'send'",
    "queue": "'mail'",
    "payload": "'{}'",
    "run_at": "'2030-01-01 00:00Z'",
    "delay_tolerance": "'60 s'",
    "deadline_at": "'2030-01-01 00:01Z'",
    "due": "false",
    "status": "'pending'",
}
LEASE = {"leased_at": "'2030-01-01Z'", "lease_expires_at": "'2030-01-02Z'"}
FINISHED = {"finished_at": "'2030-01-01Z'"}

STATES = {
    "scheduled": {},
    "waiting": {"due": "true"},
    "leased": LEASE,
    "running": {"status": "'running'", "attempts": "1", **LEASE},
    "succeeded": {"status": "'succeeded'", **FINISHED},
    "dead": {"status": "'dead'", **FINISHED},
    "cancelled": {"status": "'cancelled'", **FINISHED},
}

BROKEN = [
    ("jobs_status_known", {"status": "'done'"}),
    ("jobs_status_known", {"status": "''"}),
    ("jobs_running_holds_lease", {"status": "'running'", "attempts": "1"}),
    ("jobs_lease_whole", {"leased_at": "now()"}),
    ("jobs_lease_whole", {"lease_expires_at": "now()"}),
    ("jobs_finished_holds_none", {"status": "'dead'", **FINISHED, **LEASE}),
    ("jobs_finished_at_end", {"status": "'succeeded'"}),
    ("jobs_finished_at_end", {"status": "'pending'", **FINISHED}),
    ("jobs_finished_at_end", {"status": "'dead'"}),
    ("jobs_due_waits", {"due": "true", **LEASE}),
    ("jobs_due_waits", {"due": "true", "status": "'running'", "attempts": "1", **LEASE}),
    ("jobs_due_waits", {"due": "true", "status": "'succeeded'", **FINISHED}),
    ("jobs_probe_holds_lease", {"probe": "true"}),
    ("jobs_attempts_in_range", {"attempts": "-1"}),
    ("jobs_attempts_in_range", {"attempts": "4", "max_attempts": "3"}),
    ("jobs_attempts_in_range", {"max_attempts": "0"}),
    ("jobs_deadline_follows_run_at", {"deadline_at": "'2030-01-01 00:02Z'"}),
    ("jobs_deadline_follows_run_at", {"run_at": "'2030-01-01 00:00:01Z'"}),
    ("jobs_deadline_follows_run_at", {"run_at": "'infinity'", "deadline_at": "'infinity'"}),
    ("jobs_deadline_follows_run_at", {"run_at": "'-infinity'", "deadline_at": "'-infinity'"}),
    (
        "jobs_times_readable",
        {"run_at": "'20000-01-01 00:00Z'", "deadline_at": "'20000-01-01 00:01Z'"},
    ),
    (
        "jobs_times_readable",
        {"run_at": "'0001-01-01 00:00Z BC'", "deadline_at": "'0001-01-01 00:01Z BC'"},
    ),
    (
        "jobs_times_readable",
        {
            "run_at": "'9998-01-01 00:00Z'",
            "delay_tolerance": "'87600000 hours'",
            "deadline_at": "timestamptz '9998-01-01 00:00Z' + interval '87600000 hours'",
        },
    ),
    ("jobs_payload_is_object", {"payload": "'[]'"}),
    ("jobs_payload_is_object", {"payload": "'null'"}),
    ("jobs_payload_is_object", {"payload": "'\"text\"'"}),
]


def insert(db: psycopg.Connection[Any], **changes: str) -> None:
    row = {**VALID, **changes, "id": f"'{uuid4()}'"}
    db.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join(row.values())})".encode())


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_the_lifecycle_can_be_stored(
    db: psycopg.Connection[Any], state: str
) -> None:
    insert(db, **STATES[state])


@pytest.mark.parametrize(
    ("constraint", "changes"),
    BROKEN,
    ids=[f"{number}-{constraint}" for number, (constraint, _) in enumerate(BROKEN)],
)
def test_a_row_that_breaks_a_rule_is_refused_by_its_constraint(
    db: psycopg.Connection[Any], constraint: str, changes: dict[str, str]
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as refusal:
        insert(db, **changes)

    assert refusal.value.diag.constraint_name == constraint


def test_every_constraint_of_the_table_is_attacked(db: psycopg.Connection[Any]) -> None:
    names = {row[0] for row in check_names(db)}

    assert names == {constraint for constraint, _ in BROKEN}


def check_names(db: psycopg.Connection[Any]) -> Iterator[tuple[str]]:
    return iter(
        db.execute(
            "SELECT conname FROM pg_constraint "
            "WHERE conrelid = 'jobs'::regclass AND contype = 'c'"
        )
    )


def test_an_update_cannot_break_a_rule_either(db: psycopg.Connection[Any]) -> None:
    insert(db, **STATES["running"])

    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute("UPDATE jobs SET leased_at = NULL, lease_expires_at = NULL")


def test_two_unfinished_jobs_of_a_tenant_cannot_share_a_key(db: psycopg.Connection[Any]) -> None:
    insert(db, dedupe_key="'k'")
    insert(db, dedupe_key="'k'", tenant_id="'bolt'")

    with pytest.raises(psycopg.errors.UniqueViolation) as refusal:
        insert(db, dedupe_key="'k'", **STATES["running"])

    assert refusal.value.diag.constraint_name == "idx_jobs_dedupe_key"


def test_finished_jobs_may_share_a_key_with_an_unfinished_one(
    db: psycopg.Connection[Any],
) -> None:
    for state in ("succeeded", "dead", "cancelled", "waiting"):
        insert(db, dedupe_key="'k'", **STATES[state])


def test_the_session_time_zone_does_not_matter_to_an_update(db: psycopg.Connection[Any]) -> None:
    """The tolerance is kept in seconds; days would be shorter or longer across a clock change."""
    db.execute("SET TimeZone = 'Europe/Berlin'")
    insert(
        db,
        run_at="'2030-03-30 12:00Z'",
        delay_tolerance="make_interval(secs => 86400)",
        deadline_at="'2030-03-31 12:00Z'",
    )
    db.execute("SET TimeZone = 'UTC'")

    db.execute("UPDATE jobs SET priority = 1")
