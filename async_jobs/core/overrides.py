"""What operators may set instead of what the environment says. Pure.

    of a use case   paused, capacity
    of a tenant     max_pending_jobs, max_concurrent_jobs, rate_per_second, burst, weight

An override holds until it is taken back. `config` keeps what the environment says; `steered` in
`async_jobs/steering.py` lays the overrides over it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from async_jobs.core.explain import GONE_AFTER_SECONDS

PAUSED = "paused"
CAPACITY = "capacity"
TENANT_SETTINGS = (
    "max_pending_jobs",
    "max_concurrent_jobs",
    "rate_per_second",
    "burst",
    "weight",
)
MOST_OVERRIDES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One setting of a use case (`tenant_id` is "") or of a tenant (`use_case` is "")."""

    use_case: str
    tenant_id: str
    setting: str
    value: Any
    changed_by: str
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """Who did what, and what was there before and after; "" where it is about nobody's."""

    id: int
    acted_at: datetime
    actor: str
    move: str
    use_case: str
    tenant_id: str
    job_id: Any
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSeen:
    """A scheduler or worker, and when it last said that it lives."""

    name: str
    role: str
    version: str
    serves: dict[str, Any]
    up_seconds: float
    seen_seconds: float
    stop_asked: bool


def alive(processes: Sequence[ProcessSeen]) -> dict[str, int]:
    """How many of each role were seen lately."""
    seen = Counter(one.role for one in processes if one.seen_seconds < GONE_AFTER_SECONDS)
    return {role: seen[role] for role in ("scheduler", "worker")}
