"""Each process works with its own role of `deploy/roles.sql`, and can do nothing else with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from moving_parts import open_store
from psycopg import errors as pg
from store.test_every_query import NAMES, numbered

from async_jobs.models import JobStatus
from async_jobs.store.queries import query

DsnOf = Callable[[str], str]
JOB: dict[str, Any] = {"tenant_id": "acme", "use_case": "flow", "type": "note", "payload": {}}


async def test_api_scheduler_worker_and_operator_need_no_more_than_their_roles(
    make_stage: Callable[..., Any], dsn_of: DsnOf
) -> None:
    stage = make_stage(
        ASYNC_JOBS_PER_TENANT_QUOTAS='{"acme": {"max_pending_jobs": 100, "rate_per_second": 50}}',
        ASYNC_JOBS_FLOW_ON_LATE="drop",
    )
    stage.scheduler(ASYNC_JOBS_DB_DSN=dsn_of("scheduler"))
    stage.worker(ASYNC_JOBS_DB_DSN=dsn_of("worker"))
    async with AsyncExitStack() as stack:
        api = stage.service(await stack.enter_async_context(open_store(dsn_of("api"))))
        operator = stage.service(await stack.enter_async_context(open_store(dsn_of("operator"))))

        noted = await api.enqueue(**JOB)
        twin = {**JOB, "dedupe_key": "k", "type": "parent"}
        parent = await api.enqueue(**twin)
        await api.enqueue_many([])
        flaky = await api.enqueue(
            **JOB | {"type": "flaky", "payload": {"succeeds_at": 2}},
            backoff_policy={"type": "constant", "base_delay_seconds": 0.05},
        )
        dead = await api.enqueue(
            **JOB | {"type": "flaky", "payload": {"succeeds_at": 9}}, max_attempts=1
        )
        await api.slo()
        waiting = await api.enqueue(**JOB, run_at=datetime.now(UTC) + timedelta(hours=1))
        cancelled = await operator.cancel(waiting.job_id, actor="test")
        requeued = await operator.requeue(waiting.job_id, actor="test")
        await operator.list()
        for enqueued in (noted, parent, flaky, dead, waiting):
            await stage.finished(api.get, enqueued.job_id)

    assert (cancelled.status, requeued.status) == (JobStatus.CANCELLED, JobStatus.PENDING)
    assert stage.stop_all() == [0, 0]
    assert "permission denied" not in stage.said()
    assert "InsufficientPrivilege" not in stage.said()


PRODUCING = (
    "insert_job insert_jobs insert_absent_jobs find_stored_jobs find_live_twins lock_tenants "
    "count_unfinished "
    "sample_running hint_due get_pace count_due_before count_due_of_tenant find_tenants read_demand"
)
READING = (
    "get_job list_jobs ping sum_slo sum_histograms sum_tenants find_demand find_pulse snapshot_job "
    "count_dead_rows"
)
NEEDED = {
    "api": f"{PRODUCING} {READING} trace_finished",
    "operator": (
        "cancel_job requeue_job hint_due find_processes ask_to_stop find_overrides set_overrides "
        "find_audit write_audit count_old examine find_matching find_unfinished_twin list_chosen "
        f"write_matching cancel_matching requeue_matching sum_minutes {READING}"
    ),
    "scheduler": (
        "ping survey promote_due rescue_jobs release_jobs renew_leases prune_finished "
        "prune_by_status end_late lock_use_case count_in_flight lease_due lease_chosen find_due "
        "find_flows find_candidates sample_finished hint_leased find_breakers find_failing "
        "open_breakers probe_breakers close_breakers get_capacity set_capacity restore_capacity "
        "find_rates set_rates prune_controls add_slo prune_slo hint_due report_alive "
        "report_gone grant_claims"
    ),
    "worker": (
        f"{PRODUCING} ping ask_for_grant claim_due "
        "start_jobs start_leased extend_attempts finish_attempts "
        "report_endings add_slo prune_slo report_alive report_gone"
    ),
}


@pytest.mark.parametrize("role", NEEDED)
def test_a_role_may_run_every_statement_of_its_process(dsn_of: DsnOf, role: str) -> None:
    denied = []
    with psycopg.connect(dsn_of(role), autocommit=True) as conn:
        for topic, name in NAMES:
            if name in NEEDED[role].split() and not _may_run(conn, topic, name):
                denied.append(name)

    assert denied == []


def test_every_statement_belongs_to_a_role() -> None:
    known = {name for names in NEEDED.values() for name in names.split()}

    assert known == {name for _, name in NAMES}


def _may_run(conn: psycopg.Connection[Any], topic: str, name: str) -> bool:
    """Whether the planner lets this role begin: rights are looked at before the first row."""
    text, parameters = numbered(query(name, topic))
    conn.execute(b"PREPARE one AS " + text)
    values = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    try:
        conn.execute(f"EXPLAIN EXECUTE one {values}".encode())
    except pg.InsufficientPrivilege:
        return False
    finally:
        conn.execute("DEALLOCATE one")
    return True


REFUSED = {
    "api": [
        "UPDATE jobs SET status = 'cancelled'",
        "UPDATE jobs SET payload = '{}'",
        "DELETE FROM jobs",
        "INSERT INTO jobs_slo SELECT * FROM jobs_slo",
        "DELETE FROM jobs_breakers",
        "INSERT INTO jobs_overrides SELECT * FROM jobs_overrides",
        "SELECT * FROM jobs_audit",
    ],
    "operator": [
        "INSERT INTO jobs SELECT * FROM jobs",
        "UPDATE jobs SET payload = '{}'",
        "UPDATE jobs SET tenant_id = 'x'",
        "UPDATE jobs SET lease_seq = 0",
        "DELETE FROM jobs",
        "UPDATE jobs_capacities SET capacity = 1",
        "UPDATE jobs_audit SET actor = 'x'",
        "DELETE FROM jobs_audit",
        "UPDATE jobs_processes SET name = 'x'",
    ],
    "scheduler": [
        "INSERT INTO jobs SELECT * FROM jobs",
        "UPDATE jobs SET payload = '{}'",
        "UPDATE jobs SET result = '{}'",
        "UPDATE jobs SET max_attempts = 9",
        "UPDATE jobs SET tenant_id = 'x'",
    ],
    "worker": [
        "UPDATE jobs SET payload = '{}'",
        "UPDATE jobs SET type = 'x'",
        "UPDATE jobs SET max_attempts = 9",
        "DELETE FROM jobs",
        "DELETE FROM jobs_breakers",
        "UPDATE jobs_rates SET next_at = now()",
        "UPDATE jobs_overrides SET value = '1'",
        "SELECT * FROM jobs_audit",
    ],
}
NOBODY = [
    "TRUNCATE jobs",
    "DROP TABLE jobs",
    "ALTER TABLE jobs ADD COLUMN x int",
    "CREATE INDEX ON jobs (id)",
    "COMMENT ON TABLE jobs IS 'x'",
    "CREATE TABLE public.mine ()",
    "CREATE ROLE mine",
    "COPY jobs TO PROGRAM 'true'",
    "SELECT * FROM pg_authid",
]


@pytest.mark.parametrize("role", REFUSED)
def test_a_role_can_do_nothing_else(dsn_of: DsnOf, role: str) -> None:
    with psycopg.connect(dsn_of(role), autocommit=True) as conn:
        for statement in [*REFUSED[role], *NOBODY]:
            with pytest.raises(pg.InsufficientPrivilege):
                conn.execute(statement.encode())


def test_somebody_without_a_role_sees_nothing(owner_dsn: str, dsn_of: DsnOf) -> None:
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        if not owner.execute("SELECT FROM pg_roles WHERE rolname = 'stranger'").fetchall():
            owner.execute("CREATE ROLE stranger LOGIN PASSWORD 'sesame'")
    with psycopg.connect(dsn_of("stranger"), autocommit=True) as conn:
        for table in ("jobs", "jobs_slo", "jobs_breakers", "jobs_audit"):
            with pytest.raises(pg.InsufficientPrivilege):
                conn.execute(f"SELECT FROM {table}".encode())
