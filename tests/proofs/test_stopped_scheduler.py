"""A scheduler that is stopped (SIGSTOP) at the worst moment holds its use case up for under 5 s.

in its turn       it holds the turn, and its connection stays open
while it sends    its leases are committed, and their tickets never leave
"""

from __future__ import annotations

import signal

import pytest
from flows.stage import Process
from starvation import Stopwatch

from .conftest import Ground, MakeTroupe, tell
from .troupe import Troupe

MOST_SECONDS = 5.0
JOBS = 200

_TURN = """
    SELECT application_name FROM pg_stat_activity AS session
    WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND EXISTS (
            SELECT FROM pg_locks
            WHERE pg_locks.pid = session.pid AND locktype = 'advisory' AND granted
                AND (classid::bigint << 32) | objid::bigint
                    = hashtextextended('async_jobs dispatch notifications', 0))
"""
_LEFT = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"

pytestmark = pytest.mark.slow


async def test_stopped_in_its_turn(
    make_troupe: MakeTroupe, capsys: pytest.CaptureFixture[str]
) -> None:
    troupe = make_troupe()
    troupe.fill("notifications", JOBS)
    with troupe.connect() as conn, conn.transaction():
        # A turn's count passes this, its lease waits.
        conn.execute("LOCK TABLE jobs IN SHARE MODE")
        schedulers = [troupe.scheduler() for _ in range(2)]
        await troupe.started([*schedulers, troupe.worker()])
        await troupe.until("one is in its turn", lambda: troupe.query(_TURN))
        [(name,)] = troupe.query(_TURN)
        victim = _by_pid(troupe, int(name.split(":")[2]))
        victim.send(signal.SIGSTOP)

    delay = await _until_a_job_starts(troupe)
    victim.send(signal.SIGCONT)

    _tell(capsys, "in its turn", delay)
    assert delay < MOST_SECONDS
    await troupe.until("it has noticed", lambda: "works again" in victim.log)
    await _goes_on_alone(troupe, victim)


def _by_pid(troupe: Troupe, pid: int) -> Process:
    return next(one for one in troupe.processes if one.popen.pid == pid)


async def _until_a_job_starts(troupe: Troupe) -> float:
    watch = Stopwatch()
    sql = "SELECT count(*) FROM jobs WHERE started_at > %s"
    [(now,)] = troupe.query("SELECT clock_timestamp()")
    await troupe.until("a job starts", lambda: troupe.number(sql, now))
    return watch.seconds


async def _goes_on_alone(troupe: Troupe, scheduler: Process) -> None:
    """The stopped one has survived: it serves the rest, and what comes, without the other."""
    for one in troupe.processes:
        if one is not scheduler and one.name.startswith("scheduler"):
            one.kill()
    troupe.fill("notifications", 1)
    await troupe.until("everything is done", lambda: not troupe.number(_LEFT))
    assert scheduler.is_running


def _tell(capsys: pytest.CaptureFixture[str], where: str, delay: float) -> None:
    tell(capsys, f"scheduler stopped {where}: the next job started {delay:.2f} s later")


async def test_stopped_while_it_sends(
    ground: Ground, make_troupe: MakeTroupe, capsys: pytest.CaptureFixture[str]
) -> None:
    troupe = make_troupe(sqs=("notifications",))
    ground.fault(kind="hang", operations=["SendMessageBatch"], count=1)
    before = ground.servers.sqs_requests("SendMessageBatch")
    troupe.fill("notifications", JOBS)
    await troupe.started([troupe.worker()])
    victim = troupe.scheduler()
    await troupe.until("it sends", lambda: ground.servers.sqs_requests("SendMessageBatch") > before)
    victim.send(signal.SIGSTOP)
    watch = Stopwatch()
    troupe.scheduler()

    await _until_a_job_starts(troupe)
    delay = watch.seconds

    _tell(capsys, "while it sends", delay)
    assert delay < MOST_SECONDS
