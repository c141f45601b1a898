"""What a claim brings: store and transport both speak of it."""

from __future__ import annotations

from typing import NamedTuple

from async_jobs.models import StartedJob


class Claimed(NamedTuple):
    """What a claim brought, what is in flight now, and the capacity that was granted.

    If `some_wait`, another one may bring more: there was no room for all, somebody else had the
    turn, or a use case without leave comes first. Otherwise nothing waits.
    """

    jobs: list[StartedJob]
    use_case: str = ""
    in_flight: int = 0
    capacity: int = 0
    some_wait: bool = True
