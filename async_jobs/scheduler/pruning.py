"""Prunes the finished jobs of one use case, by age and by status.

Jobs of every status that are older than the longest retention go first. Where dead ones are kept
longer, or shorter, the statuses with the shorter retention are looked for after that: from the last
job seen on, so that what is kept is read once and not with every pass. Once in a while the search
begins anew, for jobs that were locked when it passed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from async_jobs.config import UseCaseConfig
from async_jobs.models import JobStatus
from async_jobs.store.retention import Pruned

BEGIN_ANEW_SECONDS = 3_600.0
DEAD = (JobStatus.DEAD,)
OTHERS = (JobStatus.SUCCEEDED, JobStatus.CANCELLED)


class StatusDesk(Protocol):
    """Prunes by status."""

    async def prune_by_status(
        self,
        use_case: str,
        statuses: Iterable[JobStatus],
        *,
        retention_seconds: float,
        last: Pruned,
        most: int,
    ) -> Pruned: ...


class PruneDesk(Protocol):
    """The store's moves that pruning makes."""

    @property
    def retention(self) -> StatusDesk: ...

    async def prune(self, use_case: str, *, retention_seconds: float, most: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """Jobs deleted, and whether more wait to be."""

    jobs: int
    cut: bool


class Pruning:
    """One use case's retention; 0 seconds keep for ever."""

    def __init__(
        self, desk: PruneDesk, use_case: UseCaseConfig, *, retention_seconds: float
    ) -> None:
        self._desk = desk
        self._use_case = use_case.name
        own, dead = use_case.retention_seconds, use_case.retention_dead_seconds
        others_seconds = (retention_seconds if own is None else own) or math.inf
        dead_seconds = others_seconds if dead is None else dead or math.inf
        self._longest_seconds = max(others_seconds, dead_seconds)
        self._shorter_seconds = min(others_seconds, dead_seconds)
        self._shorter = DEAD if dead_seconds < others_seconds else OTHERS
        self._last = Pruned()
        self._begin_anew_at = 0.0

    async def prune(self, *, most: int) -> Pass:
        """One batch of each kind."""
        jobs, cut = 0, False
        if self._longest_seconds < math.inf:
            jobs = await self._desk.prune(
                self._use_case, retention_seconds=self._longest_seconds, most=most
            )
            cut = jobs == most
        if self._shorter_seconds < self._longest_seconds:
            last = await self._prune_shorter(most)
            jobs, cut = jobs + last.jobs, cut or last.seen == most
        return Pass(jobs, cut)

    async def _prune_shorter(self, most: int) -> Pruned:
        if time.monotonic() >= self._begin_anew_at:
            self._last = Pruned()
            self._begin_anew_at = time.monotonic() + BEGIN_ANEW_SECONDS
        self._last = await self._desk.retention.prune_by_status(
            self._use_case,
            self._shorter,
            retention_seconds=self._shorter_seconds,
            last=self._last,
            most=most,
        )
        return self._last
