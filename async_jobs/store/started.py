"""What a start or a claim returns, as jobs: one decoding for a whole batch of payloads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from async_jobs.models import StartedJob

_BACKOFF = 9
"""Its place among what a start returns."""


def started_jobs(rows: Sequence[tuple[Any, ...]]) -> list[StartedJob]:
    """Rows of a start or a claim as jobs.

    Their payloads, which come first and as text, are read all at once.
    """
    try:
        payloads = json.loads(f"[{','.join([row[0] for row in rows])}]")
        policies = [row[_BACKOFF] and json.loads(row[_BACKOFF]) for row in rows]
    except (ValueError, RecursionError):
        return [_started_alone(row) for row in rows]
    return [
        StartedJob._make((payload, *row[1:_BACKOFF], policy, *row[_BACKOFF + 1 :], ""))
        for row, payload, policy in zip(rows, payloads, policies, strict=True)
    ]


def _started_alone(row: tuple[Any, ...]) -> StartedJob:
    """A row as a job that says so if its payload cannot be read; a policy of no use is none."""
    policy, payload, unreadable = None, {}, ""
    with suppress(ValueError, RecursionError):
        policy = json.loads(row[_BACKOFF] or "null")
    try:
        payload = json.loads(row[0])
    except (ValueError, RecursionError) as error:
        unreadable = type(error).__name__
    return StartedJob._make((payload, *row[1:_BACKOFF], policy, *row[_BACKOFF + 1 :], unreadable))
