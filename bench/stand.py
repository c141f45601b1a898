"""One contestant's stand: a fresh database and queue, its processes, its record files.

Jobs are counted from the files that handlers append to, 24 bytes a start, which
survive kill -9; not from what a library says of itself. That all jobs are finished
is asked of the contestant's own table or queue.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import select
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from bench.contestants import Contestant
from bench.servers import Servers

COMMAND_SECONDS = 300.0
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
BOOT_MOST_SECONDS = 60.0
LOOK_SECONDS = 0.005
RECORD_BYTES = 24
_ERROR_TEXT = 1_500
_stands = itertools.count(1)


class StandError(Exception):
    """A contestant did not do what the protocol asks; the text ends with what it printed."""


class Stand:
    """A contestant at work; a context manager that leaves nothing behind."""

    def __init__(self, contestant: Contestant, servers: Servers) -> None:
        self.contestant = contestant
        self.servers = servers
        # A deleted queue's name is taken for a minute, so every stand has its own.
        self.database = re.sub(r"\W", "_", f"bench_{contestant.name}_{next(_stands)}")
        self.own_statements = 0
        self.command_seconds = 0.0
        self._processes: list[subprocess.Popen[str]] = []
        self._next_number = 0
        self._queue_url = ""

    def __enter__(self) -> Self:
        memory = Path("/dev/shm")  # noqa: S108 - a fresh folder in it, with a random name
        place = memory if memory.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="bench-", dir=place)
        name = sql.Identifier(self.database)
        control = self.servers.control
        control.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        control.execute(sql.SQL("CREATE DATABASE {}").format(name))
        self.dsn = self.servers.database_dsn(self.database)
        self._conn: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(self.dsn, autocommit=True)
        if self.contestant.queue:
            created = self.servers.sqs("CreateQueue", QueueName=self._queue_name)
            self._queue_url = str(created["QueueUrl"])
        self.run("init")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._conn.close()
        name = sql.Identifier(self.database)
        self.servers.control.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        if self._queue_url:
            self.servers.sqs("DeleteQueue", QueueUrl=self._queue_url)
        self._folder.cleanup()

    @property
    def pids(self) -> list[int]:
        """The processes that work; each may have children."""
        return [process.pid for process in self._processes]

    def run(self, *arguments: object) -> dict[str, float]:
        """Run one command of the adapter to its end; the JSON line it printed, if any."""
        before = _children_seconds()
        done = subprocess.run(
            self._command(*arguments),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        self.command_seconds += _children_seconds() - before
        if done.returncode:
            raise StandError(f"{arguments[0]} failed: {done.stderr[-_ERROR_TEXT:]}")
        printed = done.stdout.strip().splitlines()
        return dict(json.loads(printed[-1])) if printed else {}

    def enqueue(self, jobs: int, *, clients: int, bulk: bool) -> float:
        """Enqueue *jobs* jobs; the seconds it took."""
        mode = "bulk" if bulk else "single"
        told = self.run("enqueue", jobs, clients, mode, self._numbers(jobs))
        return told["secs"]

    def paced(self, rate: float, seconds: float) -> range:
        """Enqueue one job every 1/rate seconds; the numbers of those jobs."""
        jobs = int(rate * seconds)
        first = self._numbers(jobs)
        self.run("paced", rate, seconds, first)
        return range(first, first + jobs)

    def start(self) -> None:
        """Start a worker, wait until it is ready, let it go."""
        with self._errors.open("ab") as errors:
            process = subprocess.Popen(
                self._command("worker"),
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        heard, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        if not heard or process.stdout.readline().strip() != "READY":
            raise StandError(f"the worker did not get ready: {self.errors()}")
        process.stdin.write("GO\n")
        process.stdin.flush()

    def warm_up(self) -> None:
        """Have one job run to its end: whoever boots slowly is up when this returns."""
        deadline = time.monotonic() + BOOT_MOST_SECONDS
        self.enqueue(1, clients=1, bulk=False)
        self.wait_until(lambda: bool(self.starts()), deadline)
        self.wait_finished(deadline)

    def wait_started(self, jobs: int, deadline: float) -> None:
        """Wait until so many starts are noted; raises StandError at the deadline (monotonic)."""
        self.wait_until(lambda: self.started() >= jobs, deadline)

    def wait_finished(self, deadline: float) -> None:
        """Wait until no job is left; raises StandError at the deadline (monotonic)."""
        self.wait_until(lambda: not self.left(), deadline, every_seconds=2 * LOOK_SECONDS)

    def wait_until(
        self, is_true: Callable[[], bool], deadline: float, *, every_seconds: float = LOOK_SECONDS
    ) -> None:
        """Look again and again; raises StandError at the deadline (monotonic)."""
        while not is_true():
            if time.monotonic() > deadline:
                told = f"{self.started()} starts, {self.left()} jobs left at the end of the time"
                raise StandError(f"{told}: {self.errors()}")
            time.sleep(every_seconds)

    def stop(self) -> None:
        """End the workers: SIGTERM, and after a while whatever is left of their groups."""
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        self._processes.clear()

    def started(self) -> int:
        """How many starts there were, repetitions included."""
        return sum(file.stat().st_size for file in self._records()) // RECORD_BYTES

    def starts(self) -> list[tuple[int, int, int]]:
        """Job number, time of enqueue and time of start (ns) of every start; warm-ups left out."""
        found: list[tuple[int, int, int]] = []
        for file in self._records():
            content = file.read_bytes()
            whole = len(content) // RECORD_BYTES * RECORD_BYTES
            found += struct.iter_unpack("<qqq", content[:whole])
        return [start for start in found if start[0] >= 0]

    def left(self) -> int:
        """How many jobs are not finished."""
        if self.contestant.left:
            self.own_statements += 1
            counted = self._conn.execute(self.contestant.left.encode()).fetchone()
            return int(counted[0]) if counted else 0
        asked = self.servers.sqs(
            "GetQueueAttributes", QueueUrl=self._queue_url, AttributeNames=["All"]
        )
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return sum(int(asked["Attributes"][name]) for name in names)

    def analyze(self) -> None:
        """Let the planner know what autovacuum would soon have told it."""
        self.own_statements += 1
        self._conn.execute("ANALYZE")

    def errors(self) -> str:
        """The end of what the workers printed."""
        return self._errors.read_text("utf-8", "replace")[-_ERROR_TEXT:]

    @property
    def _errors(self) -> Path:
        return Path(self._folder.name) / "errors"

    @property
    def _queue_name(self) -> str:
        return self.database

    def _records(self) -> list[Path]:
        return list(Path(self._folder.name).glob("record.*"))

    def _numbers(self, jobs: int) -> int:
        first, self._next_number = self._next_number, self._next_number + jobs
        return first

    def _command(self, *arguments: object) -> list[str]:
        adapter = [self.contestant.interpreter, str(self.contestant.adapter)]
        return adapter + [str(argument) for argument in arguments]

    def _environment(self) -> dict[str, str]:
        # An installed package is compiled already; compiling is no part of a start.
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return {
            **inherited,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
            "BENCH_DSN": self.dsn,
            "BENCH_URL": self.dsn,
            "BENCH_REC": f"{self._folder.name}/record",
            "BENCH_SQS": self.servers.sqs_url,
            "BENCH_QNAME": self._queue_name,
            "BENCH_QURL": self._queue_url,
            **self.contestant.environment,
        }


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
