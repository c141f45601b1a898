"""A PostgreSQL of its own, because roles belong to a whole server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flows.stage import Stage
from moving_parts import POSTGRES_BIN
from psycopg.conninfo import make_conninfo

from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
ROLES = ("api", "operator", "scheduler", "worker")
PASSWORD = "sesame"


@pytest.fixture(scope="session")
def role_server() -> Iterator[PostgresServer]:
    with PostgresServer(settings="fast", bin_dir=POSTGRES_BIN) as server:
        yield server


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def owner_dsn(role_server: PostgresServer, numbers: Iterator[int]) -> str:
    """A fresh database with the schema and the shipped roles, as its owner sees it."""
    name = f"roles_{next(numbers)}"
    with psycopg.connect(role_server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    dsn = make_conninfo(role_server.dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(get_ddl())
        for _ in range(2):
            owner.execute((ROOT / "deploy" / "roles.sql").read_bytes())
        for role in ROLES:
            if not owner.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchall():
                login = f"LOGIN PASSWORD '{PASSWORD}' IN ROLE async_jobs_{role}"
                owner.execute(f"CREATE ROLE {role} {login}".encode())
    return dsn


@pytest.fixture
def dsn_of(owner_dsn: str) -> Callable[[str], str]:
    """The connection string of one of the roles."""
    return lambda role: make_conninfo(owner_dsn, user=role, password=PASSWORD)


@pytest.fixture
def make_stage(owner_dsn: str, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Makes a stage whose processes end with the test."""
    made: list[Stage] = []

    def make(queue_url: str | None = None, **settings: Any) -> Stage:
        made.append(Stage(owner_dsn, queue_url, tmp_path, settings))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
