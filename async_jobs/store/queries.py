"""Reads the named statements of a .sql file: `query("start_jobs")` gives its text.

A statement begins at `-- name: verb_noun` and ends where the next one begins.
Callers resolve their statements when their class is made, so a misspelt name
fails at import and cannot reach production. Bytes, because the driver takes
them as a trusted text where it refuses a plain str.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_HEADER = re.compile(r"^-- name: ([a-z_]+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


@cache
def statements(topic: str) -> dict[str, bytes]:
    """Every statement of `store/<topic>.sql` by name, without its comments."""
    text = files("async_jobs.store").joinpath(f"{topic}.sql").read_text("utf-8")
    parts = _HEADER.split(text)[1:]
    named = zip(parts[::2], parts[1::2], strict=True)
    return {name: _COMMENT.sub("", body).strip().rstrip(";").encode() for name, body in named}


def query(name: str, topic: str = "jobs") -> bytes:
    """One statement; KeyError, naming the file, if there is none of that name."""
    found = statements(topic)
    if name not in found:
        raise KeyError(f"store/{topic}.sql has no statement named {name!r}")
    return found[name]
