"""The scheduler: promote, rescue, dispatch each use case, prune. Any number may run.

Two kinds of loop, all of them `runtime.Loop`:

    housekeeping   one statement looks at index heads (`survey`); only what it finds is acted on:
                   scheduled jobs become due, expired leases are taken back, use cases with work
                   are woken. Sleeps until the next job becomes due, the next lease runs out, or
                   the interval has passed: the safety net that needs no hint.
    dispatching    one loop per use case, so that one queue that hangs holds up no other. Sleeps
                   until woken by housekeeping or a hint; paces itself while there is work.

There is no leader. Replicas take turns in each use case by an advisory lock
that ends with its transaction, and rescue skips rows that another one holds.
`tick()` does everything once, in order: for tests and for `--once` runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from async_jobs.config import AsyncJobsConfig
from async_jobs.failpoints import reach
from async_jobs.runtime.loop import Loop
from async_jobs.scheduler.dispatch import Dispatcher
from async_jobs.scheduler.pruning import PruneDesk, Pruning
from async_jobs.store.jobs import Rescued, Survey
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import JobRescued, JobsPruned, LeaseUnused

MOST_PER_BATCH = 1_000
SHORTEST_SLEEP_SECONDS = 0.01
STUCK_SLEEP_SECONDS = 0.25
PRUNE_EVERY_SECONDS = 60.0


class HouseDesk(PruneDesk, Protocol):
    """The store's moves that housekeeping makes."""

    async def survey(self, use_cases: Sequence[str]) -> Survey: ...

    async def promote_due(self, most: int) -> Counter[str]: ...

    async def rescue(self, most: int) -> list[Rescued]: ...


@dataclass(slots=True)
class TickReport:
    """What one tick did."""

    promoted: int = 0
    rescued: int = 0
    sent: int = 0
    failed: int = 0
    pruned: int = 0
    use_cases_with_work: set[str] = field(default_factory=set)


class Scheduler:
    """Keeps every use case supplied, as long as `run` runs."""

    def __init__(
        self,
        desk: HouseDesk,
        dispatchers: Sequence[Dispatcher],
        *,
        interval_seconds: float,
        retention_seconds: float,
        bus: Bus,
    ) -> None:
        self._desk = desk
        self._dispatchers = {one.use_case.name: one for one in dispatchers}
        self._interval_seconds = interval_seconds
        self._prunings = {
            name: Pruning(desk, one.use_case, retention_seconds=retention_seconds)
            for name, one in self._dispatchers.items()
        }
        self._bus = bus
        self._prune_at = 0.0
        self._house = Loop("scheduler housekeeping", self._house_tick, bus=bus)
        self._loops = {
            name: Loop(f"dispatch of {name}", one.tick, bus=bus)
            for name, one in self._dispatchers.items()
        }

    @property
    def loops(self) -> list[Loop]:
        """Every loop, for health checks."""
        return [self._house, *self._loops.values()]

    def hint(self, use_case: str) -> None:
        """There may be work in *use_case* now; if workers claim it, they were told, too."""
        if use_case in self._loops and not self._dispatchers[use_case].stands_back:
            self._loops[use_case].wake()

    def look_again(self) -> None:
        """Hints may have been missed: survey everything now."""
        self._house.wake()

    def steer(self, config: AsyncJobsConfig, paused: Collection[str]) -> None:
        """Go by *config* from the next passes on, and lease nothing in the *paused* use cases."""
        for name, dispatcher in self._dispatchers.items():
            use_case = config.use_cases.get(name, dispatcher.use_case)
            dispatcher.steer(use_case, config.per_tenant_quotas, paused=name in paused)
            self._loops[name].wake()

    async def run(self) -> None:
        """Work until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            for loop in self.loops:
                tasks.create_task(loop.run())

    def stop(self) -> None:
        """Let `run` return after the ticks under way."""
        for loop in self.loops:
            loop.stop()

    async def tick(self) -> TickReport:
        """Everything once, in order."""
        report = TickReport()
        await self._keep_house(report)
        for name in sorted(report.use_cases_with_work):
            done = await self._dispatchers[name].dispatch()
            report.sent += done.sent
            report.failed += done.failed
        return report

    async def _house_tick(self) -> float:
        report = TickReport()
        survey = await self._keep_house(report)
        for name in report.use_cases_with_work:
            self._loops[name].wake()
        return self._sleep_after(survey, moved=report.promoted + report.rescued > 0)

    def _sleep_after(self, survey: Survey, *, moved: bool) -> float:
        """Until the next moment; what has come and could not be moved is in other hands now."""
        shortest = SHORTEST_SLEEP_SECONDS if moved else STUCK_SLEEP_SECONDS
        moments = [survey.next_due_in_seconds, survey.next_expiry_in_seconds]
        ahead = [
            max(moment, shortest if moment <= 0 else SHORTEST_SLEEP_SECONDS)
            for moment in moments
            if moment is not None
        ]
        return min([*ahead, self._interval_seconds])

    async def _keep_house(self, report: TickReport) -> Survey:
        survey = await self._desk.survey(list(self._dispatchers))
        report.use_cases_with_work |= set(survey.use_cases_with_work)
        if _has_come(survey.next_expiry_in_seconds):
            await self._rescue(report)
        if _has_come(survey.next_due_in_seconds):
            await self._promote(report)
        await self._prune(report)
        return survey

    async def _promote(self, report: TickReport) -> None:
        promoted = await self._desk.promote_due(MOST_PER_BATCH)
        report.promoted += promoted.total()
        report.use_cases_with_work |= promoted.keys() & self._dispatchers.keys()

    async def _rescue(self, report: TickReport) -> None:
        await reach("scheduler.before_rescue")
        rescued = await self._desk.rescue(MOST_PER_BATCH)
        await reach("scheduler.after_rescue")
        for job in rescued:
            report.rescued += 1
            if job.use_case in self._dispatchers:
                report.use_cases_with_work.add(job.use_case)
            self._bus.emit(_rescue_event(job))

    async def _prune(self, report: TickReport) -> None:
        if time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + PRUNE_EVERY_SECONDS
        for name, pruning in self._prunings.items():
            pruned = await pruning.prune(most=MOST_PER_BATCH)
            report.pruned += pruned.jobs
            if pruned.jobs:
                self._bus.emit(JobsPruned(use_case=name, jobs=pruned.jobs))
            if pruned.cut:
                self._prune_at = 0.0


def _has_come(in_seconds: float | None) -> bool:
    return in_seconds is not None and in_seconds <= 0


def _rescue_event(job: Rescued) -> JobRescued | LeaseUnused:
    facts: dict[str, Any] = {
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "use_case": job.use_case,
        "type": job.type,
        "queue": job.queue,
        "attempt": job.attempts,
    }
    if not job.was_running:
        return LeaseUnused(**facts)
    return JobRescued(**facts, worker=job.worker, dead=job.status.is_finished)
