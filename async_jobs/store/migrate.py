"""The schema: numbered files in `migrations/`, applied in order, recorded on the table.

    version   is written in the comment of the table `jobs`: one table stays one table
    one file  additive, idempotent, never edited after a release; its first line says `-- online`
              when code one version older keeps working while it runs (the rule)
    functions those of `functions.sql`, replaced as a whole after the last file; whoever changes one
              adds a file, so that the version tells who has it
    ddl()     all files as one DO block behind one advisory lock: one statement, so it is
              all or nothing, and ten containers may run it at once

Nothing here runs by itself: `--init-db`, `async-jobs migrate` and users' own
tools call it. A comment that was lost (some dumps drop it) reads as version 0
and the next migration run repairs it.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import LiteralString

import psycopg
from psycopg.rows import scalar_row

from async_jobs.errors import SchemaOutdated
from async_jobs.store.queries import statements

_FILE = re.compile(r"(\d{4})_[a-z_]+\.sql")
_VERSION: LiteralString = r"""
    SELECT least(
        coalesce(substring(
            obj_description(to_regclass('jobs'), 'pg_class') from 'async_jobs schema (\d+)'
        ), '0')::int,
        CASE WHEN to_regproc('jobs_claim') IS NULL THEN 7 END)
"""
"""A dump of the tables alone leaves the functions behind, which came with version 8."""


def migrations() -> list[tuple[int, str]]:
    """Every migration as (version, SQL text), oldest first."""
    folder = files("async_jobs.store").joinpath("migrations")
    found = [
        (int(match.group(1)), entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if (match := _FILE.fullmatch(entry.name))
    ]
    return sorted(found)


def latest_version() -> int:
    """The schema version this library needs."""
    return migrations()[-1][0]


def ddl() -> LiteralString:
    """The whole schema as one idempotent statement."""
    body = "\n".join(text for _, text in migrations())
    functions = b"\n".join(text + b";" for text in statements("functions").values()).decode()
    script: LiteralString = (  # ty: ignore[invalid-assignment] # made of our own files only
        "DO $async_jobs$\nBEGIN\n"
        "PERFORM pg_advisory_xact_lock(hashtextextended('async_jobs schema', 0));\n"
        f"{body}\n{functions}\n"
        f"COMMENT ON TABLE jobs IS 'async_jobs schema {latest_version()}';\n"
        "END\n$async_jobs$;\n"
    )
    return script


async def apply(conn: psycopg.AsyncConnection[object]) -> int:
    """Bring the schema up to date in the connection's transaction; the version it had before."""
    before = await installed_version(conn)
    await conn.execute("SET LOCAL lock_timeout = '30s'")
    await conn.execute(ddl())
    return before


async def installed_version(conn: psycopg.AsyncConnection[object]) -> int:
    """The version the database says it has; 0 where there is no table or no comment."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_VERSION)
    return int(await cursor.fetchone() or 0)


async def check(conn: psycopg.AsyncConnection[object]) -> None:
    """Raise SchemaOutdated if the database is older than this library needs."""
    found = await installed_version(conn)
    if found < latest_version():
        raise SchemaOutdated(found, latest_version())
