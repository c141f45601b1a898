"""Whole rows, as operators look at them: whatever was written past the library, they can be read.

A number of five thousand digits, nesting beyond all measure or a time at infinity is legal in
PostgreSQL and unreadable here. One such row must not hide a page of others, so what cannot be read,
or is no object where one belongs, gives way to a note, a time to the last or first one there is.
Columns of a newer schema are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor, DataError
from psycopg.types.datetime import TimestamptzBinaryLoader
from psycopg.types.json import JsonbBinaryLoader

from async_jobs.models import Job

_COLUMNS = {each.name for each in fields(Job)}
_OBJECTS = ("backoff_policy", "last_error", "trace_context")
_NEGATIVE = 0x80
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class _AnyJson(JsonbBinaryLoader):
    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except (ValueError, RecursionError) as error:
            return _note(f"cannot be read ({type(error).__name__})")


class _AnyTime(TimestamptzBinaryLoader):
    def load(self, data: Any) -> datetime:
        try:
            return super().load(data)
        except DataError:
            return _FIRST if bytes(data)[0] & _NEGATIVE else _LAST


def read_leniently(cursor: AsyncCursor[Any]) -> None:
    """Let *cursor* read whatever a row may hold."""
    cursor.adapters.register_loader("jsonb", _AnyJson)
    cursor.adapters.register_loader("timestamptz", _AnyTime)


def job_row(cursor: AsyncCursor[Any]) -> Callable[[Sequence[Any]], Job]:
    """Makes jobs of rows."""
    names = [column.name for column in cursor.description or ()]
    known = [(at, name) for at, name in enumerate(names) if name in _COLUMNS]

    def made(row: Sequence[Any]) -> Job:
        values = {name: row[at] for at, name in known}
        for name in _OBJECTS:
            if not isinstance(values.get(name), dict | None):
                values[name] = _note("is no object")
        return Job(**values)

    return made


def listed_row(
    cursor: AsyncCursor[Any],
) -> Callable[[Sequence[Any]], tuple[UUID | None, Job | None]]:
    """Makes of rows how far a list has looked, and a job if there is one."""
    names = [column.name for column in cursor.description or ()]
    at, id_at, made = names.index("looked_to"), names.index("id"), job_row(cursor)
    return lambda row: (row[at], None if row[id_at] is None else made(row))


def _note(text: str) -> dict[str, str]:
    return {"async_jobs_note": text}
