"""The ground of the proofs: a PostgreSQL that counts statements, and an SQS server beside it.

Those that matter most run in CI, for some seconds each. All of them, with another length of those
that have one and another seed: `PROOF_SECONDS=60 PROOF_SEED=7 pytest --timeout 600 tests/proofs`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg
import pytest
from moving_parts import POSTGRES_BIN
from psycopg.conninfo import make_conninfo
from starvation import Record, recorded

from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from bench.servers import Servers, sqs_server

from .troupe import Troupe

OPTIONS = {"shared_preload_libraries": "pg_stat_statements"}
SECONDS = float(os.environ.get("PROOF_SECONDS", "6"))
SEED = int(os.environ.get("PROOF_SEED", "1"))

LONG = pytest.mark.skipif(
    "PROOF_SECONDS" not in os.environ, reason="set PROOF_SECONDS to run all proofs"
)

MakeTroupe = Callable[..., Troupe]


@dataclass(frozen=True, slots=True)
class Ground:
    """Both servers, and a number for each database and queue."""

    servers: Servers
    numbers: Iterator[int]
    record: Record

    def database(self) -> str:
        """The connection string of a fresh database with the schema."""
        name = f"proof_{next(self.numbers)}"
        self.servers.control.execute(f"CREATE DATABASE {name}".encode())
        dsn = make_conninfo(self.servers.dsn, dbname=name)
        with psycopg.connect(dsn) as conn:
            conn.execute(get_ddl())
        return dsn

    def queue(self, use_case: str) -> str:
        """The URL of a fresh SQS queue."""
        name = f"{use_case}-{next(self.numbers)}"
        return str(self.servers.sqs("CreateQueue", QueueName=name)["QueueUrl"])

    def fault(self, **fault: object) -> None:
        """Let the SQS server show this fault, and no other."""
        content = json.dumps({"seed": SEED, "faults": [fault]}).encode()
        place = f"{self.servers.sqs_url}/_faults"
        request = Request(place, content, method="PUT")  # noqa: S310 # our own server
        with urlopen(request, timeout=10) as answer:  # noqa: S310 # the same
            assert answer.status == HTTPStatus.OK


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    with (
        PostgresServer(settings="fast", options=OPTIONS, bin_dir=POSTGRES_BIN) as postgres,
        sqs_server() as (url, pid),
        psycopg.connect(postgres.dsn, autocommit=True) as control,
        recorded() as record,
    ):
        control.execute("CREATE EXTENSION pg_stat_statements")
        servers = Servers(control, postgres.dsn, postgres.pid, url, pid)
        yield Ground(servers, itertools.count(1), record)


@pytest.fixture
def make_troupe(ground: Ground, tmp_path: Path) -> Iterator[MakeTroupe]:
    """Makes a troupe; *sqs* names its use cases that go through SQS, the others use the table."""
    made: list[Troupe] = []

    def make(*, sqs: tuple[str, ...] = (), dsn: str | None = None, **settings: Any) -> Troupe:
        urls = {use_case: ground.queue(use_case) for use_case in sqs}
        given = {name: str(value) for name, value in settings.items()}
        made.append(Troupe(dsn or ground.database(), None, tmp_path, given, queue_urls=urls))
        return made[-1]

    yield make
    for troupe in made:
        troupe.close()


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Show a figure even if the test passes."""
    with capsys.disabled():
        print(f"\n{text}")  # noqa: T201 # figures are what a proof is run for
