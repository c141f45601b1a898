"""The private servers of one run: a durable PostgreSQL and a local SQS, both on loopback.

PostgreSQL runs with its own defaults (fsync, synchronous_commit and full_page_writes
on, 128 MB of shared buffers), plus pg_stat_statements and room for connections. The
SQS server is a process of its own, so that its CPU time can be told apart.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import psycopg

from async_jobs.embedded.lifeline import kernel_can_watch, signal_on_our_death
from async_jobs.embedded.postgres import PostgresServer

POSTGRES_OPTIONS = {
    "shared_buffers": "128MB",
    "jit": "on",
    "max_connections": "200",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.max": "10000",
}
ANSWER_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers are, and the connection that the harness controls PostgreSQL by."""

    control: psycopg.Connection[tuple[Any, ...]]
    dsn: str
    postgres_pid: int
    sqs_url: str
    sqs_pid: int

    def database_dsn(self, name: str) -> str:
        """The connection string of another database of the server."""
        return self.dsn.rpartition("/")[0] + f"/{name}"

    def sqs_requests(self, operation: str = "") -> int:
        """How many requests the SQS server has received: of one operation, or all but our own."""
        counts = self._ask("GET", "/_requests", {}, "")
        if operation:
            return int(counts.get(operation, 0))
        ours = ("CreateQueue", "DeleteQueue", "GetQueueAttributes")
        return sum(count for operation, count in counts.items() if operation not in ours)

    def sqs(self, operation: str, **parameters: object) -> dict[str, Any]:
        """Call the SQS server; for queues' set-up and message counts, outside the measured."""
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{operation}",
        }
        return self._ask("POST", "/", headers, json.dumps(parameters))

    def _ask(self, method: str, path: str, headers: dict[str, str], text: str) -> dict[str, Any]:
        place = urlsplit(self.sqs_url).netloc
        with closing(HTTPConnection(place, timeout=ANSWER_SECONDS)) as connection:
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != HTTPStatus.OK:
            raise OSError(f"the SQS server answered {answer.status}: {content.decode()}")
        return dict(json.loads(content)) if content else {}


@contextmanager
def running() -> Iterator[Servers]:
    """Start both servers and stop them at the end; their data goes with them."""
    with (
        PostgresServer(options=POSTGRES_OPTIONS) as postgres,
        sqs_server() as (url, pid),
        psycopg.connect(postgres.dsn, autocommit=True) as control,
    ):
        control.execute("CREATE EXTENSION pg_stat_statements")
        yield Servers(control, postgres.dsn, postgres.pid, url, pid)


@contextmanager
def sqs_server(host: str = "127.0.0.1", *queues: str) -> Iterator[tuple[str, int]]:
    """An SQS server with these *queues* as a process of its own: its URL and process id."""
    command = [sys.executable, "-m", "async_jobs.embedded.sqs", "--faults", "--host", host]
    for queue in queues:
        command += ["--queue", queue]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=signal_on_our_death(signal.SIGTERM) if kernel_can_watch() else None,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
