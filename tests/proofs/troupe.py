"""Schedulers and workers as processes on a database of their own, with what a proof needs.

Differs from the flows' stage in this: several use cases, and the default settings unless a proof
says otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from flows.stage import Process, Stage
from moving_parts import environment

HERE = Path(__file__).parent
TESTS = HERE.parent

_FILL = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at,
        max_attempts, due
    )
    SELECT
        gen_random_uuid(), 'acme', %(use_case)s, 'nap', %(queue)s, %(payload)s::jsonb, now.at,
        make_interval(secs => %(tolerance)s), now.at + make_interval(secs => %(tolerance)s),
        100, true
    FROM (SELECT clock_timestamp() AS at) AS now, generate_series(1, %(jobs)s)
"""


@dataclass
class Troupe(Stage):
    """The processes of one proof. `queue_urls` has the use cases that go through SQS."""

    queue_urls: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        queues = {f"ASYNC_JOBS_SQS_QUEUE_{name.upper()}": u for name, u in self.queue_urls.items()}
        return environment(
            ASYNC_JOBS_DB_DSN=self.dsn,
            ASYNC_JOBS_HANDLERS_MODULE="proof_handlers",
            PYTHONPATH=os.pathsep.join([str(HERE), str(TESTS), str(TESTS.parent)]),
            **{**queues, **self.settings},
        )

    def script(self, name: str) -> Process:
        """Start one of this folder's files as a process."""
        return self.spawn(name, [sys.executable, str(HERE / f"{name}.py")])

    def worker(self, **env: str) -> Process:
        return self.start("worker", **env)

    def spawn(self, role: str, command: Sequence[str]) -> Process:
        name = f"{role}-{len(self.processes) + 1}"
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
            )
        self.processes.append(Process(name, popen, path))
        return self.processes[-1]

    def fill(
        self, use_case: str, jobs: int, *, seconds: float = 0.0, tolerance_seconds: float = 3_600.0
    ) -> None:
        """Put *jobs* waiting jobs into the table, each of which takes *seconds*."""
        found = self.config.use_case(use_case)
        assert found is not None
        self.execute(
            _FILL,
            use_case=use_case,
            queue=found.queue,
            payload=json.dumps({"seconds": seconds}),
            tolerance=tolerance_seconds,
            jobs=jobs,
        )

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of the proof's own."""
        return psycopg.connect(self.dsn, autocommit=True)

    def execute(self, sql: str, **params: object) -> None:
        """Change the table past the code under test."""
        with self.connect() as conn:
            conn.execute(sql.encode(), params)

    def number(self, sql: str, *params: object) -> float:
        """The one value that *sql* gives."""
        return float(self.query(sql, *params)[0][0])

    async def started(self, processes: Sequence[Process]) -> None:
        """Wait until these processes say that they work."""
        for one in processes:
            await self.until(f"{one.name} works", lambda one=one: "ready:" in one.log)  # type: ignore[misc] # a default binds it

    def close(self) -> None:
        for one in self.processes:
            if one.is_running:
                one.send(signal.SIGCONT)
        super().close()
