"""The audit finds what it is for: one planted violation for each invariant, in a right history."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from . import audit
from .ground import CAPACITY, SQS, Ground

WORKER, OTHER, SCHEDULER = (
    "async-jobs-worker:host:11:aaaaaa",
    "async-jobs-worker:host:12:bbbbbb",
    "async-jobs-scheduler:host:13:cccccc",
)
_CHECKS = "SELECT conname FROM pg_constraint WHERE conrelid = 'jobs'::regclass AND contype = 'c'"
_STORE = """
    INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
        deadline_at, due, dedupe_key)
    VALUES (%s, %s, 'mail', 'work', 'mail', '{}', now() + %s::interval, '60 s',
        now() + %s::interval + '60 s', true, %s)
"""
_LEASE = """
    UPDATE jobs SET leased_at = now(), lease_expires_at = now() + '3 s', due = false,
        lease_seq = lease_seq + 1 WHERE id = %s
"""
_START = """
    UPDATE jobs SET status = 'running', attempts = attempts + 1, worker = 'w',
        lease_expires_at = now() + '3 s' WHERE id = %s
"""
_SUCCEED = """
    UPDATE jobs SET status = 'succeeded', finished_at = now(), leased_at = NULL,
        lease_expires_at = NULL WHERE id = %s
"""
_TAKE_BACK = """
    UPDATE jobs SET status = 'pending', due = true, leased_at = NULL, lease_expires_at = NULL
    WHERE id = %s
"""


@dataclass
class History:
    """A table without checks, and a file of runs, to write a history into."""

    conn: psycopg.Connection[tuple[object, ...]]
    runs: Path
    told: audit.Told

    def do(self, app: str, sql: str, *params: object) -> None:
        self.conn.execute("SELECT set_config('application_name', %s, false)", [app])
        self.conn.execute(sql.encode(), params)

    def store(
        self, tenant_id: str = "acme", *, in_time: str = "0 s", key: str | None = None
    ) -> UUID:
        job_id = uuid4()
        self.do("api", _STORE, job_id, tenant_id, in_time, in_time, key)
        self.told.note("stored", [job_id])
        return job_id

    def ran(self, job_id: UUID, seq: int, event: str, *, pid: int = 11, type: str = "work") -> None:
        with self.runs.open("a") as file:
            file.write(f"{job_id} {seq} 1 {pid} {event} {time.monotonic():.6f} {type} mail\n")

    def started(self, **more: str) -> UUID:
        job_id = self.store(**more)
        self.do(SCHEDULER, _LEASE, job_id)
        self.do(WORKER, _START, job_id)
        self.ran(job_id, 1, "start")
        return job_id

    def succeeded(self) -> UUID:
        job_id = self.started()
        self.ran(job_id, 1, "end")
        self.do(WORKER, _SUCCEED, job_id)
        return job_id

    def found(self, **terms: object) -> set[str]:
        told = {"capacities": {SQS: CAPACITY}, "quotas": {"small": 1}, "secrets": ["hunter2"]}
        given = audit.Terms(**{**told, **terms})  # type: ignore[arg-type] # whatever a test says
        return set(audit.check(self.conn, given, runs=self.runs, told=self.told))


@pytest.fixture
def history(ground: Ground, tmp_path: Path) -> Iterator[History]:
    with psycopg.connect(ground.database(), autocommit=True) as conn:
        for (name,) in conn.execute(_CHECKS).fetchall():
            conn.execute(f"ALTER TABLE jobs DROP CONSTRAINT {name}".encode())
        conn.execute("DROP INDEX idx_jobs_dedupe_key")
        yield History(conn, tmp_path / "runs", audit.Told())


def test_a_right_history_is_clean(history: History) -> None:
    history.succeeded()
    retried = history.started()
    history.ran(retried, 1, "raise")
    history.do(WORKER, _TAKE_BACK, retried)
    history.do(SCHEDULER, _LEASE, retried)
    history.do(OTHER, _START, retried)
    history.ran(retried, 2, "start", pid=12)
    history.ran(retried, 2, "end", pid=12)
    history.do(OTHER, _SUCCEED, retried)

    assert history.found() == set()


def lost(history: History) -> None:
    history.do("x", "DELETE FROM jobs WHERE id = %s", history.store())


def left_over(history: History) -> None:
    history.store()


def left_its_end(history: History) -> None:
    history.do("x", "UPDATE jobs SET status = 'dead' WHERE id = %s", history.succeeded())


def rescued_too_early(history: History) -> None:
    history.do(SCHEDULER, _TAKE_BACK, history.started())


def leased_without_a_new_fence(history: History) -> None:
    job_id = history.started()
    history.do(WORKER, _TAKE_BACK, job_id)
    history.do(SCHEDULER, "UPDATE jobs SET leased_at = now(), lease_expires_at = now() + '1 s'")


def finished_by_a_stranger(history: History) -> None:
    job_id = history.started()
    history.ran(job_id, 1, "end")
    history.do(OTHER, _SUCCEED, job_id)


def attempts_above_the_most(history: History) -> None:
    history.do("x", "UPDATE jobs SET attempts = 4 WHERE id = %s", history.succeeded())


def started_twice_under_one_lease(history: History) -> None:
    history.ran(history.started(), 1, "start", pid=12)


def overlapping(history: History) -> None:
    job_id = history.started()
    history.do(WORKER, _TAKE_BACK, job_id)
    history.do(SCHEDULER, _LEASE, job_id)
    history.do(OTHER, _START, job_id)
    history.ran(job_id, 2, "start", pid=12)


def started_after_its_cancel(history: History) -> None:
    job_id = history.store()
    history.told.note("cancelled", [job_id])
    history.do(SCHEDULER, _LEASE, job_id)
    history.do(WORKER, _START, job_id)


def succeeded_without_a_run(history: History) -> None:
    history.do(WORKER, _SUCCEED, history.started())


def above_capacity(history: History) -> None:
    for _ in range(CAPACITY + 1):
        history.started()


def out_of_order(history: History) -> None:
    first, second = history.store(in_time="0 s"), history.store(in_time="-1 s")
    time.sleep(0.35)
    history.do(SCHEDULER, _LEASE, first)
    time.sleep(0.35)
    history.do(SCHEDULER, _LEASE, second)


def before_its_time(history: History) -> None:
    history.started(in_time="10 s")


def twins(history: History) -> None:
    history.store(key="one")
    history.store(key="one")


def shows_a_failed_send(history: History) -> None:
    history.do("x", "UPDATE jobs SET enqueue_failed = true WHERE id = %s", history.succeeded())


def holds_a_lease_after_its_end(history: History) -> None:
    history.do("x", "UPDATE jobs SET leased_at = now() WHERE id = %s", history.succeeded())


def has_another_deadline(history: History) -> None:
    history.do("x", "UPDATE jobs SET deadline_at = now() WHERE id = %s", history.succeeded())


def rescued_too_late(history: History) -> None:
    job_id = history.started()
    history.do(WORKER, "UPDATE jobs SET lease_expires_at = now() - interval '3 s'")
    history.do(SCHEDULER, _TAKE_BACK, job_id)


def above_its_quota(history: History) -> None:
    history.store("small")
    history.store("small")


def ran_as_another_type(history: History) -> None:
    job_id = history.store()
    history.ran(job_id, 1, "start", type="block")


def moved_by_one_who_did_not_start_it(history: History) -> None:
    job_id = history.started()
    history.ran(job_id, 1, "start", pid=12)
    history.do(OTHER, _TAKE_BACK, job_id)


def paused(history: History) -> None:
    history.store()
    history.started()
    time.sleep(0.3)
    history.started()


def told_a_job_of_another_key(history: History) -> None:
    history.told.note("stored", [history.succeeded()], dedupe_key="one")


def says_a_secret(history: History) -> None:
    sql = "UPDATE jobs SET last_error = '\"my hunter2\"' WHERE id = %s"
    history.do("x", sql, history.succeeded())


PLANTED = {
    "I01": lost,
    "I02": left_over,
    "I03": left_its_end,
    "I04": rescued_too_early,
    "I05": leased_without_a_new_fence,
    "I06": finished_by_a_stranger,
    "I07": attempts_above_the_most,
    "I08": started_twice_under_one_lease,
    "I09": overlapping,
    "I10": started_after_its_cancel,
    "I11": succeeded_without_a_run,
    "I12": above_capacity,
    "I13": out_of_order,
    "I14": before_its_time,
    "I15": twins,
    "I16": shows_a_failed_send,
    "I17": holds_a_lease_after_its_end,
    "I18": has_another_deadline,
    "I19": rescued_too_late,
    "I20": above_its_quota,
    "I21": ran_as_another_type,
    "I22": moved_by_one_who_did_not_start_it,
    "I23": paused,
    "I24": told_a_job_of_another_key,
    "I25": says_a_secret,
}


@pytest.mark.parametrize("invariant", PLANTED)
def test_a_planted_violation_is_found(history: History, invariant: str) -> None:
    PLANTED[invariant](history)

    assert invariant in history.found(gap_seconds=0.2)


def test_a_session_too_many_is_found(history: History) -> None:
    assert "I26" in history.found(most_sessions=0)


def test_every_invariant_has_its_planted_violation() -> None:
    assert [*PLANTED, "I26"] == list(audit.INVARIANTS)
