"""Real schedulers and workers as processes, and a producer beside them.

Every process logs to a file of its own. Whatever a test waits for has a deadline, and a
test that fails shows the end of each log. `close` leaves no process behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from moving_parts import environment
from starvation import Stopwatch

from async_jobs.config import AsyncJobsConfig
from async_jobs.models import Job, JobStatus
from async_jobs.service import JobService
from async_jobs.store.jobs import JobStore

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEADLINE_SECONDS = 60.0
USE_CASE = "flow"

QUICK = {
    "ASYNC_JOBS_SCHEDULER_INTERVAL_SECONDS": "0.5",
    "ASYNC_JOBS_WORKER_POLL_INTERVAL_SECONDS": "0.2",
    "ASYNC_JOBS_WORKER_LONG_POLL_SECONDS": "1",
    "ASYNC_JOBS_WORKER_VISIBILITY_TIMEOUT_SECONDS": "5",
    "ASYNC_JOBS_WORKER_GRACE_SECONDS": "5",
    "ASYNC_JOBS_LEASE_DURATION_SECONDS": "3",
    "ASYNC_JOBS_DISPATCH_LEASE_SECONDS": "2",
    "ASYNC_JOBS_HEARTBEAT_INTERVAL_SECONDS": "0.5",
    "ASYNC_JOBS_FLOW_MAX_CONCURRENT": "100",
    "ASYNC_JOBS_WORKER_CONCURRENCY": "20",
}


@dataclass
class Process:
    """One command under way."""

    name: str
    popen: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(DEADLINE_SECONDS)

    def exit_code(self) -> int:
        """How it ended; fails if it does not end in time."""
        return self.popen.wait(DEADLINE_SECONDS)


@dataclass
class Stage:
    """A database, a transport, a folder, and the processes that a test starts."""

    dsn: str
    queue_url: str | None
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        queue = {"ASYNC_JOBS_SQS_QUEUE_FLOW": self.queue_url} if self.queue_url else {}
        return environment(
            ASYNC_JOBS_DB_DSN=self.dsn,
            ASYNC_JOBS_HANDLERS_MODULE="flow_handlers",
            FLOW_RUNS=str(self.folder / "runs"),
            PYTHONPATH=os.pathsep.join([str(HERE), str(ROOT)]),
            **{**QUICK, **queue, **self.settings},
        )

    @property
    def config(self) -> AsyncJobsConfig:
        return AsyncJobsConfig.from_env(self.env, warn=lambda text: None)

    def service(self, store: JobStore) -> JobService:
        return JobService(self.config, store)

    def start(self, role: str, *words: str, **env: str) -> Process:
        """Start `async-jobs-<role>`, without waiting until it is ready."""
        name = f"{role}-{len(self.processes) + 1}"
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, *self.program(role), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.env, **env},
            )
        self.processes.append(Process(name, popen, path))
        return self.processes[-1]

    def program(self, role: str) -> list[str]:
        """What Python runs for `async-jobs-<role>`."""
        return ["-m", f"async_jobs.cli.{role}"]

    def scheduler(self, **env: str) -> Process:
        return self.start("scheduler", **env)

    def worker(self, **env: str) -> Process:
        return self.start("worker", "--queue", USE_CASE, **env)

    def file(self, name: str) -> Path:
        return self.folder / name

    def runs(self) -> Counter[UUID]:
        """How often each job's handler was entered."""
        path = self.folder / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(UUID(line.split()[0]) for line in lines)

    def runs_of(self, job_id: UUID) -> int:
        return self.runs()[job_id]

    def query(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """What the table holds, read past the code under test."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return conn.execute(sql.encode(), params).fetchall()

    async def until(
        self, what: str, condition: Callable[[], object], *, every_seconds: float = 0.02
    ) -> None:
        """Wait until *condition* holds; fails with the processes' logs after the deadline."""
        watch = Stopwatch()
        while not condition():
            if watch.seconds > DEADLINE_SECONDS:
                raise AssertionError(f"not in time: {what}\n{self.logs()}")
            await asyncio.sleep(every_seconds)

    async def finished(self, get: Callable[[UUID], Awaitable[Job]], job_id: UUID) -> Job:
        """The job once it has finished."""
        watch = Stopwatch()
        while not (job := await get(job_id)).status.is_finished:
            if watch.seconds > DEADLINE_SECONDS:
                raise AssertionError(f"not finished in time: {job}\n{self.logs()}")
            await asyncio.sleep(0.02)
        return job

    async def all_succeeded(self, job_ids: Iterable[UUID]) -> None:
        ids = list(job_ids)

        def left() -> int:
            sql = "SELECT count(*) FROM jobs WHERE id = ANY (%s) AND status = %s"
            return len(ids) - int(self.query(sql, ids, JobStatus.SUCCEEDED.value)[0][0])

        await self.until("all jobs succeeded", lambda: left() == 0, every_seconds=0.1)

    def said(self) -> str:
        """All that the processes logged."""
        return "\n".join(one.log for one in self.processes)

    def logs(self) -> str:
        """The end of each log, for a test that fails; what to look for may be further up."""
        return "\n".join(
            f"--- {one.name} (exit code {one.popen.poll()})\n{one.log[-3_000:]}"
            for one in self.processes
        )

    def stop_all(self) -> list[int]:
        """SIGTERM to all that still run; their exit codes."""
        running = [one for one in self.processes if one.is_running]
        for one in running:
            one.send(signal.SIGTERM)
        return [one.exit_code() for one in running]

    def close(self) -> None:
        for one in self.processes:
            if one.is_running:
                one.kill()
