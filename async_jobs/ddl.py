"""The database schema as text, for whoever applies it with their own tools."""

from __future__ import annotations

from typing import LiteralString

from async_jobs.store.migrate import ddl


def get_ddl() -> LiteralString:
    """The whole schema as one idempotent statement, safe from several processes at once.

    It creates what is missing and changes nothing that is there. It needs no
    extension and works on PostgreSQL 15 and later.
    """
    return ddl()
