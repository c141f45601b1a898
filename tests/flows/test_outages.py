"""What processes do while PostgreSQL or SQS is away: little, and they can still be stopped."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from moving_parts import POSTGRES_BIN, open_store
from psycopg.conninfo import make_conninfo
from starvation import Stopwatch

from async_jobs.cli.process import STOP_SECONDS
from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.testing import TcpProxy

from .stage import Process, Stage

OUTAGE_SECONDS = 5.0
CONNECTS_PER_SECOND = 2.0
LINES_PER_SECOND = 10.0
RESUMES_WITHIN_SECONDS = 6.0
SLACK_SECONDS = 8.0
"""For a machine that is busy with other tests."""
LISTEN_BACKLOG = 64


class ClosedDoor:
    """Accepts connections, counts them and hangs up."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=LISTEN_BACKLOG)
        self.port = self._listener.getsockname()[1]
        self.knocks: list[float] = []

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.knocks.append(time.monotonic())
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def closed_door() -> Iterator[ClosedDoor]:
    door = ClosedDoor()
    thread = threading.Thread(target=door.run)
    thread.start()
    yield door
    door.close()
    thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(settings="fast", bin_dir=POSTGRES_BIN) as server:
        yield server


@pytest.fixture
def sqs() -> Iterator[tuple[str, TcpProxy]]:
    """The URL of a queue behind a proxy, and the proxy."""
    with SqsServer.in_thread() as server, TcpProxy.in_thread(server.port) as proxy:
        url = server.create_queue("outage")
        yield url.replace(f":{server.port}", f":{proxy.port}"), proxy


_numbers = itertools.count(1)


@dataclass
class Ground:
    """A stage whose processes reach PostgreSQL through a proxy; its own look goes past it."""

    stage: Stage
    proxy: TcpProxy
    server: PostgresServer

    def start(self, role: str, *words: str, **env: str) -> Process:
        through = make_conninfo(self.stage.dsn, port=self.proxy.port)
        return self.stage.start(role, *words, ASYNC_JOBS_DB_DSN=through, **env)

    async def ready(self, process: Process) -> None:
        await self.stage.until("it is ready", lambda: " ready" in process.log)

    async def enqueue(self, type: str, **more: object) -> None:
        async with open_store(self.stage.dsn) as store:
            until = str(self.stage.file("never"))
            await self.stage.service(store).enqueue(
                use_case="flow", tenant_id="a", type=type, payload={"until": until, **more}
            )


@pytest.fixture
def ground(server: PostgresServer, tmp_path: Path) -> Iterator[Ground]:
    name = f"outage_{next(_numbers)}"
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    dsn = make_conninfo(server.dsn, dbname=name)
    with psycopg.connect(dsn) as conn:
        conn.execute(get_ddl())
    with TcpProxy.in_thread(server.port) as proxy:
        stage = Stage(dsn, None, tmp_path)
        yield Ground(stage, proxy, server)
        stage.close()


@pytest.mark.parametrize("role", ["worker", "scheduler"])
async def test_an_outage_is_borne_quietly_and_without_a_restart(ground: Ground, role: str) -> None:
    stage = ground.stage
    process = ground.start(role)
    await ground.ready(process)
    if role == "worker":
        stage.scheduler()
        await ground.enqueue("hold")
        await stage.until("the job runs", stage.runs)
    with closed_door() as door:
        lines = process.log.count("\n")
        ground.proxy.to_port = door.port
        began = time.monotonic()
        ground.proxy.reset()
        await asyncio.sleep(OUTAGE_SECONDS)
        knocks, said = len(door.knocks), process.log.count("\n") - lines
        lasted = time.monotonic() - began
        ground.proxy.to_port = ground.server.port
    watch = Stopwatch()
    await stage.until("it works again", lambda: "works again" in process.log)

    assert 2 <= knocks <= CONNECTS_PER_SECOND * lasted, process.log
    assert said <= LINES_PER_SECOND * lasted, process.log
    assert watch.seconds < RESUMES_WITHIN_SECONDS
    assert process.is_running


async def test_processes_before_a_black_hole_end_in_time_with_0(
    ground: Ground, sqs: tuple[str, TcpProxy]
) -> None:
    url, sqs_proxy = sqs
    stage = ground.stage
    through_sqs = {"ASYNC_JOBS_SQS_QUEUE_FLOW": url, "ASYNC_JOBS_WORKER_GRACE_SECONDS": "1"}
    roles = ("worker", "scheduler")
    plain = [ground.start(role, ASYNC_JOBS_WORKER_GRACE_SECONDS="1") for role in roles]
    on_sqs = [stage.start(role, **through_sqs) for role in roles]
    for process in (*plain, *on_sqs):
        await ground.ready(process)
    await ground.enqueue("hold")
    await ground.enqueue("hold_thread")
    await stage.until("the jobs run", lambda: stage.runs().total() == 2)
    for hole in (ground.proxy, sqs_proxy):
        hole.black_hole()
    await ground.enqueue("note")
    await asyncio.sleep(0.5)

    watch = Stopwatch()
    for process in (*plain, *on_sqs):
        process.send(signal.SIGTERM)
    codes = [await asyncio.to_thread(process.exit_code) for process in (*plain, *on_sqs)]

    assert codes == [0, 0, 0, 0], stage.logs()
    assert watch.seconds < 1 + STOP_SECONDS + SLACK_SECONDS
    assert "Traceback" not in stage.said()


async def test_a_process_that_starts_before_a_black_hole_ends_at_once(ground: Ground) -> None:
    ground.proxy.black_hole()
    processes = [ground.start(role) for role in ("worker", "scheduler")]
    await ground.stage.until("they connect", lambda: ground.proxy.connections == 2)

    watch = Stopwatch()
    for process in processes:
        process.send(signal.SIGTERM)
    codes = [await asyncio.to_thread(process.exit_code) for process in processes]

    assert codes == [0, 0], ground.stage.logs()
    assert watch.seconds < SLACK_SECONDS


async def test_a_signal_amid_the_import_of_handlers_or_a_migration_ends_the_process(
    ground: Ground,
) -> None:
    stage = ground.stage
    with psycopg.connect(stage.dsn) as conn:
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('async_jobs schema', 0))")
        migrating = stage.start("scheduler", "--init-db")
        module = stage.file("slow_handlers.py")
        module.write_text("print('importing', flush=True)\nimport time\ntime.sleep(3600)\n")
        importing = stage.start(
            "worker", "--handlers", "slow_handlers", PYTHONPATH=str(stage.folder)
        )
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await stage.until("it waits", lambda: stage.query(waits) == [(1,)])
        await stage.until("it imports", lambda: "importing" in importing.log)
        for process in (migrating, importing):
            process.send(signal.SIGTERM)
        codes = [await asyncio.to_thread(one.exit_code) for one in (migrating, importing)]

    assert codes == [0, 0], stage.logs()


async def test_a_blocked_event_loop_is_told_by_type_and_does_not_keep_the_process(
    ground: Ground,
) -> None:
    stage = ground.stage
    worker, _ = ground.start("worker", ASYNC_JOBS_WORKER_GRACE_SECONDS="0.1"), stage.scheduler()
    await ground.enqueue("block")
    await stage.until("the job is told", lambda: "event loop blocked" in worker.log)

    worker.send(signal.SIGTERM)
    code = await asyncio.to_thread(worker.exit_code)

    assert code == 0, worker.log
    assert "by a handler of type 'block'" in worker.log
    assert "leaves with work unfinished" in worker.log
