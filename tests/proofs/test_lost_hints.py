"""Hints that get lost, noticed or not, cost at most the interval; a pooler needs none at all."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from moving_parts import open_store
from pooler import pooler
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from async_jobs.models import NewJob
from async_jobs.store import hints
from async_jobs.testing import TcpProxy

from .conftest import LONG, Ground, MakeTroupe, tell
from .troupe import Troupe

Mode = Literal["silent", "refuse"]
LISTEN = b"LISTEN async_jobs"
USE_CASE = "notifications"
INTERVAL_SECONDS = 1.0
POLL_SECONDS = 0.25
MARGIN_SECONDS = 1.0
JOBS = 4
_STARTED = "SELECT count(*) FROM jobs WHERE started_at IS NOT NULL"

pytestmark = pytest.mark.slow


async def waits(ground: Ground, troupe: Troupe, dsn: str) -> list[float]:
    """How long jobs wait that are enqueued one by one into the idle system; seconds."""
    async with open_store(dsn) as store:
        service = troupe.service(store)
        for number in range(JOBS):
            await asyncio.sleep(0.3 + 0.1 * number)
            await service.enqueue_many(
                [NewJob(tenant_id="acme", use_case=USE_CASE, type="nap", payload={})]
            )
            await troupe.until("it starts", lambda n=number: troupe.number(_STARTED) == n + 1)  # type: ignore[misc] # a default binds it
    sql = "SELECT extract(epoch FROM created_at), extract(epoch FROM started_at) FROM jobs"
    return [round(ground.record.between_stamps(*row), 3) for row in troupe.query(sql)]


def lose_hints(proxy: TcpProxy, mode: Mode) -> None:
    """From now on no notification arrives: silently, or with the connection each time."""
    if mode == "silent":
        proxy.black_hole("to_client", sent=LISTEN)
    else:
        proxy.reset(sent=LISTEN, again=True)


@pytest.mark.parametrize("mode", ["silent", pytest.param("refuse", marks=LONG)])
async def test_lost_hints_cost_at_most_the_interval(
    ground: Ground, make_troupe: MakeTroupe, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn = ground.database()
    with TcpProxy.in_thread(int(str(conninfo_to_dict(dsn)["port"]))) as proxy:
        proxy.watch(LISTEN)
        troupe = make_troupe(
            dsn=make_conninfo(dsn, port=proxy.port),
            ASYNC_JOBS_SCHEDULER_INTERVAL_SECONDS=INTERVAL_SECONDS,
            ASYNC_JOBS_WORKER_POLL_INTERVAL_SECONDS=POLL_SECONDS,
        )
        await troupe.started([troupe.scheduler(), troupe.worker()])
        lose_hints(proxy, mode)

        found = await waits(ground, troupe, dsn)
        troupe.close()

    tell(capsys, f"hints lost ({mode}), interval {INTERVAL_SECONDS:g} s: started after {found} s")
    assert max(found) <= INTERVAL_SECONDS + 2 * POLL_SECONDS + MARGIN_SECONDS


@LONG
# The pooler is no Python package, so a machine with pip alone does not have it.
@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="needs pgbouncer on the PATH")
async def test_it_works_through_a_pooler_that_shares_sessions(
    ground: Ground, make_troupe: MakeTroupe, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn = ground.database()
    with TemporaryDirectory() as folder, pooler(dsn, Path(folder)) as pooled:
        troupe = make_troupe(
            dsn=pooled,
            ASYNC_JOBS_DB_PREPARED_STATEMENTS="off",
            ASYNC_JOBS_SCHEDULER_INTERVAL_SECONDS=INTERVAL_SECONDS,
            ASYNC_JOBS_WORKER_POLL_INTERVAL_SECONDS=POLL_SECONDS,
        )
        await troupe.started([troupe.scheduler(), troupe.scheduler(), troupe.worker()])

        found = await waits(ground, troupe, dsn)
        troupe.fill(USE_CASE, 200)
        left = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
        await troupe.until("a backlog is done", lambda: not troupe.number(left))
        troupe.close()

    tell(capsys, f"through pgbouncer, transaction mode: started after {found} s")
    assert max(found) <= INTERVAL_SECONDS + 2 * POLL_SECONDS + MARGIN_SECONDS


@LONG
async def test_a_listener_gives_up_on_a_connection_that_is_silent(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "CONNECT_TIMEOUT_SECONDS", 2)
    dsn = ground.database()
    with TcpProxy.in_thread(int(str(conninfo_to_dict(dsn)["port"]))) as proxy:
        lose_hints(proxy, "silent")
        listener = hints.HintListener(
            make_conninfo(dsn, port=proxy.port),
            {"async_jobs_due": lambda topic: None},
            application_name="listener",
        )
        with pytest.raises(TimeoutError):
            await listener.tick()
