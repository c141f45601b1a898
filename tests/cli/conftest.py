"""A database without our schema, for commands that create or miss it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo


@pytest.fixture
def empty_database(
    postgres_dsn: str, postgres_admin: psycopg.Connection[tuple[object, ...]]
) -> Iterator[str]:
    name = f"async_jobs_empty_{uuid.uuid4().hex[:12]}"
    postgres_admin.execute(f"CREATE DATABASE {name}".encode())
    yield make_conninfo(postgres_dsn, dbname=name)
    postgres_admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
