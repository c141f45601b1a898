"""What a page is asked for: filters, a place in a list, a move; and addresses that ask for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Request

from async_jobs.access import Identity
from async_jobs.core.filters import KINDS_OF_PENDING, JobFilter, Verb, parsed_filter

NAMES = tuple(each.name for each in fields(JobFilter))
VERBS: Mapping[str, Verb] = {"cancel": "cancel", "requeue": "requeue"}
UNFINISHED = ("pending", "running", *KINDS_OF_PENDING)


class Refused(Exception):
    """A page that cannot be shown: its status, and what to say."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(title)
        self.status, self.title, self.text = status, title, text


def of_query(request: Request, caller: Identity) -> tuple[JobFilter, UUID | None]:
    """The filter of an address and the place to go on from; a bound caller sees its tenant only.

    Raises InvalidJob for a filter that no job can match, Refused for a place that is none.
    """
    return of_texts(request.query_params, caller), cursor_of(request)


def of_texts(given: Mapping[str, str], caller: Identity) -> JobFilter:
    """The filter of these texts by name, as *caller* may ask for it."""
    wanted = parsed_filter({name: given.get(name, "").strip() for name in NAMES})
    return wanted if caller.tenant_id is None else replace(wanted, tenant_id=caller.tenant_id)


def cursor_of(request: Request) -> UUID | None:
    """The place to go on from."""
    text = request.query_params.get("cursor", "")
    return job_id_of(text) if text else None


def address(wanted: JobFilter, cursor: UUID | None = None) -> str:
    """The part of an address that asks for *wanted*, from *cursor* on."""
    return urlencode({**wanted.told(), **({"cursor": str(cursor)} if cursor else {})})


def verbs(wanted: JobFilter) -> tuple[Verb, ...]:
    """The moves that jobs of this filter can take."""
    if wanted.status is None:
        return ("cancel", "requeue")
    return ("cancel",) if wanted.status in UNFINISHED else ("requeue",)


def verb_of(text: str) -> Verb:
    """The move that *text* names; raises Refused."""
    if text not in VERBS:
        raise Refused(404, "There is no such move", "Jobs are cancelled or requeued.")
    return VERBS[text]


def job_id_of(text: str) -> UUID:
    """The id that *text* is; raises Refused."""
    if not re.fullmatch(r"[0-9a-fA-F-]{32,36}", text):
        raise Refused(404, "There is no such job", "A job's id is a UUID.")
    try:
        return UUID(text)
    except ValueError:
        raise Refused(404, "There is no such job", "A job's id is a UUID.") from None
