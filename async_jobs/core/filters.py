"""Which jobs an operator means: a filter that lists, counts, cancels and requeues alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from async_jobs.core.acceptance import NAME_PATTERN
from async_jobs.errors import InvalidJob
from async_jobs.models import JobStatus

KINDS_OF_PENDING = ("scheduled", "waiting", "leased")
STATES = (*(status.value for status in JobStatus), *KINDS_OF_PENDING)
"""What `status` may ask for: a stored status, or a kind of pending."""

CLOCKS_DIFFER_SECONDS = 300.0
"""Ids carry their producer's time, `created_at` the database's: so far apart they may be."""
LONGEST_TEXT = 200
LOOKED_PER_PAGE = 20_000
"""Rows that a page of a list looks through at most, however few of them match."""

_NAMES = ("tenant_id", "use_case", "type")
_TEXTS = ("error", "dedupe_key")

Verb = Literal["cancel", "requeue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Every job that is all of this; what is None or False does not matter.

    `late`: waits past its deadline, or started first after the deadline first given. `failed`: some
    attempt has failed, whatever followed. `error` is the type of the last failure. Ranges include
    their beginning and not their end; those of `enqueued` find jobs whose id is in order of time,
    as `async_jobs.ids` makes it. Raises InvalidJob for what no job can have.
    """

    tenant_id: str | None = None
    use_case: str | None = None
    status: str | None = None
    type: str | None = None
    error: str | None = None
    dedupe_key: str | None = None
    late: bool = False
    failed: bool = False
    enqueued_from: datetime | None = None
    enqueued_until: datetime | None = None
    run_from: datetime | None = None
    run_until: datetime | None = None

    def __post_init__(self) -> None:
        if self.status not in (None, *STATES):
            raise InvalidJob("status", "unknown_status", f"must be one of {', '.join(STATES)}")
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None and not re.fullmatch(NAME_PATTERN, value):
                raise InvalidJob(name, "invalid_name", "holds no name")
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not (0 < len(value) <= LONGEST_TEXT and value.isprintable()):
                reason = f"must be 1 to {LONGEST_TEXT} printable characters"
                raise InvalidJob(name, "invalid_text", reason)

    def told(self) -> dict[str, str]:
        """What it asks for, as texts by name: for the audit and for a page's address."""
        found = {name: value for name, value in asdict(self).items() if value}
        return {name: _text(value) for name, value in found.items()}

    def values(self) -> dict[str, Any]:
        """The parameters of `find_matching`; the times of ids only narrow what is read."""
        return {
            **asdict(self),
            "first_id": _id_at(self.enqueued_from, -CLOCKS_DIFFER_SECONDS),
            "last_id": _id_at(self.enqueued_until, CLOCKS_DIFFER_SECONDS),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """Ids of jobs, newest first.

    `cursor` continues after them, None at the end. `looked_through` says, when looking was cut
    off before as many were found as were asked for, how many rows that took; 0 when it was not.
    """

    ids: list[UUID]
    cursor: UUID | None
    looked_through: int = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of a move on all that matches: how many it took effect on, and where to go on."""

    jobs: int
    cursor: UUID | None


def parsed_filter(given: Mapping[str, str]) -> JobFilter:
    """The filter of texts by name, as `told` gives them; raises InvalidJob."""
    fields: dict[str, Any] = {name: text for name, text in given.items() if text}
    for name in ("late", "failed"):
        fields[name] = _yes(name, fields.get(name, ""))
    for name in ("enqueued_from", "enqueued_until", "run_from", "run_until"):
        if name in fields:
            fields[name] = _time(name, fields[name])
    return JobFilter(**fields)


def _yes(name: str, text: str) -> bool:
    if text not in ("", "yes"):
        raise InvalidJob(name, "invalid_text", "must be yes, or left out")
    return text == "yes"


def _time(name: str, text: str) -> datetime:
    """A time as browsers write it, in UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
        at = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        at = datetime.min.replace(tzinfo=UTC)
    if not 1970 <= at.year < 9000:
        reason = "must be a time such as 2030-01-31T12:00, from 1970 to 8999"
        raise InvalidJob(name, "invalid_time", reason)
    return at


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}" if value.microsecond else f"{value:%Y-%m-%dT%H:%M}"
    return "yes" if value is True else str(value)


def _id_at(at: datetime | None, more_seconds: float) -> UUID | None:
    """The least id of a moment: ids begin with 48 bits of Unix milliseconds (RFC 9562)."""
    if at is None:
        return None
    moment = max(0.0, (at + timedelta(seconds=more_seconds)).timestamp())
    return UUID(int=int(moment * 1_000) << 80)
