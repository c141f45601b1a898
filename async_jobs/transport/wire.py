"""The body of a message: which jobs to start, under which leases. Pure.

    {"v": 1, "jobs": [["0190...-...", 3], ...]}     what we send: job id and lease_seq
    0190...-...                                     a bare job id is understood too

A reader takes any version's `jobs` list of `[id, lease_seq]` pairs; a future
version that means something else must use another key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from async_jobs.models import Leased, Ticket

VERSION = 1


def write(leased: Sequence[Leased]) -> str:
    """The body that carries these jobs' tickets."""
    tickets = [[str(job.job_id), job.lease_seq] for job in leased]
    return json.dumps({"v": VERSION, "jobs": tickets}, separators=(",", ":"))


def read(body: str) -> list[Ticket]:
    """The tickets in *body*; ValueError says what is wrong with it, without repeating it."""
    text = body.strip().strip('"')
    if not text.startswith("{"):
        return [Ticket(_job_id(text), None)]
    try:
        jobs = json.loads(text)["jobs"]
        pairs = [(job_id, lease_seq) for job_id, lease_seq in jobs]
    except json.JSONDecodeError:
        raise ValueError("the body is not JSON") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError("the body is JSON but not a message of ours") from None
    return [Ticket(_job_id(job_id), _lease_seq(lease_seq)) for job_id, lease_seq in pairs]


def _job_id(text: object) -> UUID:
    try:
        return UUID(str(text))
    except ValueError:
        raise ValueError("the body holds no job id") from None


def _lease_seq(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError("the body holds a lease_seq that is none")
    return value
