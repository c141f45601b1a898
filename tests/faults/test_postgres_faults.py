"""A PostgreSQL that ends sessions, crashes, loses replies, turns read-only, or is held up."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from starvation import Stopwatch

from async_jobs.assembly import create_pool
from async_jobs.errors import MoveRefused, StoreUnavailable
from async_jobs.models import NewJob, new_job_id
from async_jobs.service import JobService
from async_jobs.store.jobs import JobStore
from async_jobs.store.queries import query

from .conftest import MakeRun
from .ground import LENGTH, Ground, Run
from .strikes import crash_all

pytestmark = pytest.mark.slow

RESUME_SECONDS = 6.0
FAILOVER_SECONDS = 10.0
MOST_CONNECTS = 2.0
MOST_LINES = 10.0
_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def lines_of_logs(run: Run) -> list[int]:
    return [len(one.log.splitlines()) for one in run.processes]


@contextmanager
def quiet(run: Run) -> Iterator[None]:
    """What happens in here makes no process shout, nor knock too often."""
    lines, knocks, began = lines_of_logs(run), run.ground.postgres_proxy.accepted, time.monotonic()
    yield
    # What a process does at once after the loss is no rate yet.
    seconds = time.monotonic() - began + 2
    most = max(after - before for before, after in zip(lines, lines_of_logs(run), strict=True))
    assert most <= MOST_LINES * seconds, run.logs()
    knocked = run.ground.postgres_proxy.accepted - knocks
    assert knocked <= MOST_CONNECTS * len(run.processes) * seconds, run.logs()


async def test_f23_all_sessions_ended_again_and_again(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    await run.put(50, seconds=0.05)
    waits = []
    for _ in range(int(3 * LENGTH)):
        run.query(_OTHERS)
        waits.append(await run.next_start())
        await asyncio.sleep(0.5)
    await run.drained()

    run.verify()
    assert max(waits) <= 2.0, waits
    run.ends_well()


def crash_one(ground: Ground) -> None:
    """kill -9 of one backend: the server ends every session and recovers."""
    with psycopg.connect(ground.postgres.dsn, autocommit=True) as conn:
        [(pid,)] = conn.execute("SELECT pg_backend_pid()").fetchall()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    accepts(ground)


def accepts(ground: Ground) -> None:
    """Wait until the server lets sessions in."""
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(ground.postgres.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def crash(ground: Ground) -> None:
    crash_all(ground, 2.0 * min(LENGTH, 3))


@pytest.mark.parametrize("crash", [crash, crash_one], ids=["f24", "f25"])
async def test_f24_f25_the_server_crashes(
    make_run: MakeRun, ground: Ground, crash: Callable[[Ground], None]
) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    await run.put(6, seconds=1.5)
    await run.running(6)
    resumed = []
    for _ in range(max(1, int(LENGTH))):
        await run.put(40, seconds=0.05)
        with run.outage(), quiet(run):
            await asyncio.to_thread(crash, ground)
        resumed.append(await run.next_start())
    await run.drained()

    figures = run.verify()
    assert max(resumed) <= RESUME_SECONDS, resumed
    assert figures["succeeded"] == figures["jobs"]
    run.ends_well()


WRITES = (
    "insert_absent_jobs",
    "COMMIT",
    "start_jobs",
    "start_leased",
    "extend_attempts",
    "finish_attempts",
    "cancel_job",
)


def words_of(write: str) -> bytes:
    """What a client sends for this write and for no other: its longest stretch without values."""
    if write == "COMMIT":
        return b"COMMIT"
    return max(re.split(rb"%\(\w+\)[sb]", query(write)), key=len)


async def test_f26_commits_whose_answer_is_lost(make_run: MakeRun, ground: Ground) -> None:
    run = make_run(ASYNC_JOBS_DB_PREPARED_STATEMENTS="off")
    run.scheduler(), run.worker()
    await run.started()
    proxy = ground.postgres_proxy
    async with create_pool(run.config) as pool:
        service = run.service(JobStore(pool))
        for number, write in enumerate(WRITES):
            cuts, wanted = proxy.cuts, int(2 * LENGTH)
            proxy.cut_replies(words_of(write), count=wanted)
            with run.outage():
                for round in range(50 * wanted):
                    if proxy.cuts - cuts == wanted:
                        break
                    await insistent(run, service, f"{number}-{round}")
            assert proxy.cuts - cuts == wanted, f"{write} was not seen\n{run.logs()}"
    await run.drained()

    figures = run.verify()
    keys = run.number("SELECT count(DISTINCT dedupe_key) FROM jobs")
    assert figures["jobs"] == keys
    assert (
        run.number("SELECT count(*) FROM jobs WHERE status NOT IN ('succeeded', 'cancelled')") == 0
    )


async def insistent(run: Run, service: JobService, key: str) -> None:
    """A producer that repeats what it got no answer to: two jobs, one of them cancelled."""
    for use_case in ("mail", "report"):
        for what, seconds in (("kept", 0.0), ("cancelled", 1.2)):
            new = NewJob(
                tenant_id="acme",
                use_case=use_case,
                type="work",
                payload={"seconds": seconds},
                job_id=new_job_id(),
                dedupe_key=f"{key}-{what}-{use_case}",
                max_attempts=20,
            )
            stored = await insisted(partial(service.enqueue, new))
            run.told.note("stored", [stored.job_id], new.dedupe_key)
            if what == "cancelled":
                await asyncio.sleep(0.05)
                # Held up for long enough, the job has succeeded before it can be cancelled.
                with suppress(MoveRefused):
                    await insisted(partial(service.cancel, stored.job_id))
                run.told.note("cancelled", [stored.job_id])


async def insisted(call: Callable[[], Any]) -> Any:
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0.05)


async def test_f28_a_failover_leaves_sessions_on_a_read_only_server(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    await run.put(20, seconds=0.5)
    name = sql.Identifier(str(conninfo_to_dict(run.dsn)["dbname"]))
    with run.outage(), quiet(run), psycopg.connect(run.dsn, autocommit=True) as conn:
        set_it = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on")
        conn.execute(set_it.format(name))
        conn.execute(_OTHERS.encode())
        await asyncio.sleep(2.0 * LENGTH)
        # Sessions from before this stay read-only for ever: they must be given up.
        conn.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(name))
    seconds = await run.next_start()
    await run.drained()

    run.verify()
    assert seconds <= FAILOVER_SECONDS
    run.ends_well()


async def test_f30_an_operator_locks_the_table(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    await run.put(60, seconds=0.1)
    with run.outage(), quiet(run), psycopg.connect(run.dsn) as conn:
        conn.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(2.5 * LENGTH)
        [(sessions,)] = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        ).fetchall()
        conn.execute("CREATE INDEX ON jobs (created_at)")
    seconds = await run.next_start()
    await run.drained()

    run.verify()
    assert sessions <= run.terms.most_sessions / 2
    assert seconds <= RESUME_SECONDS


async def test_f31_a_long_transaction_keeps_dead_rows(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    jobs = int(600 * LENGTH)
    alone = await _seconds_for(run, jobs)
    with psycopg.connect(run.dsn) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("SELECT count(*) FROM jobs")
        held = [await _seconds_for(run, jobs) for _ in range(2)]

    run.verify()
    assert max(held) <= 5 * alone + 1, (alone, held)


async def _seconds_for(run: Run, jobs: int) -> float:
    watch = Stopwatch()
    await run.put(jobs)
    await run.drained()
    return watch.seconds
