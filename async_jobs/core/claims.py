"""What a claim brings: store and transport both speak of it."""

from __future__ import annotations

from typing import NamedTuple

from async_jobs.models import StartedJob


class Claimed(NamedTuple):
    """What a claim brought, what is in flight now, and the capacity that was granted.

    Without jobs another one may have more luck soon: somebody else had the turn, the capacity is
    full, or a use case without leave comes first.
    """

    jobs: list[StartedJob]
    use_case: str = ""
    in_flight: int = 0
    capacity: int = 0
