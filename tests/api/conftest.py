"""A job service on a fresh database, and a caller of its API."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import psycopg
import pytest
import pytest_asyncio
from jobs_api import app_around, caller, opened_service
from psycopg import sql
from psycopg.conninfo import make_conninfo

from async_jobs import JobService


@pytest.fixture(scope="module")
def shared_database(
    postgres_dsn: str, postgres_admin: psycopg.Connection[Any], template_database: str
) -> Iterator[str]:
    """One database for a whole module of tests that write nothing."""
    name = f"async_jobs_shared_{uuid.uuid4().hex[:12]}"
    identifier, template = sql.Identifier(name), sql.Identifier(template_database)
    postgres_admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(identifier, template)
    )
    yield make_conninfo(postgres_dsn, dbname=name)
    postgres_admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@pytest_asyncio.fixture
async def service(database: str) -> AsyncIterator[JobService]:
    async with opened_service(database) as service:
        yield service


@pytest_asyncio.fixture
async def api(service: JobService) -> AsyncIterator[httpx2.AsyncClient]:
    async with caller(app_around(service)) as http:
        yield http
