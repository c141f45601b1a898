"""Counts what happens in a simulation, and draws the figures from it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from async_jobs.simulation.arrivals import Workload
from async_jobs.simulation.backlog import Waiting

BINS = 120
"""Spans in which the arrivals are counted; when a run takes twice as long, spans are joined."""
ROUNDING_SECONDS = 1e-9


@dataclass(slots=True)
class TenantTally:
    """What one tenant got: first attempts that started or were dropped, and slot seconds."""

    jobs: int = 0
    late: int = 0
    worst_seconds: float = 0.0
    work_seconds: float = 0.0


@dataclass(slots=True)
class Bin:
    """One span of the picture."""

    starts: int = 0
    late: int = 0
    worst_seconds: float = 0.0
    busy_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a simulation came to. Parts are of 1, times are seconds.

    A job is late when its first attempt started after its deadline, or when it was
    dropped. `p50_late_seconds` is the median of the late ones, `p99` and `worst` are of
    all. `jain` is the fairness index of the tenants' parts in time (Jain 1984): 1 when all
    are served alike, 1/n when one of n gets everything.
    """

    jobs: int
    late: int
    late_share: float
    quiet_late_share: float | None
    top_priority_late_share: float | None
    retries: int
    retries_late_share: float | None
    dropped: int
    p50_late_seconds: float
    p99_seconds: float
    worst_seconds: float
    slots_peak: int
    utilisation: float
    jain: float
    tenants: dict[str, TenantTally]
    bin_seconds: float
    bins: list[Bin]


@dataclass(slots=True)
class _Part:
    jobs: int = 0
    late: int = 0

    @property
    def share(self) -> float | None:
        return self.late / self.jobs if self.jobs else None


class Tally:
    """Told of every start; `late` counts as it goes, the rest when the figures are asked for."""

    def __init__(self, workload: Workload) -> None:
        self.late = 0
        self.dropped = 0
        self.slots_peak = 0
        self._noisy = workload.noisy
        self._top = max((each.priority for each in workload.arrivals), default=0)
        self._bin_seconds = max(workload.last_run_at, 1.0) / BINS
        self._bins: list[Bin] = []
        self._lateness: list[float] = []
        self._tenants: dict[str, TenantTally] = {}
        self._top_priority = _Part()
        self._retries = _Part()
        self._busy_seconds = 0.0

    def start(self, job: Waiting, now: float, *, running: int) -> None:
        """An attempt starts; *running* slots are in use with it."""
        arrival = job.arrival
        self._busy(now, arrival.run_seconds)
        if running > self.slots_peak:
            self.slots_peak = running
        lateness = max(0.0, now - job.deadline_at - ROUNDING_SECONDS)
        if job.attempt > 1:
            self._retries.jobs += 1
            self._retries.late += lateness > 0
            self._tenant(arrival.tenant_id).work_seconds += arrival.run_seconds
            return
        self._first(job, now, lateness)
        self._tenant(arrival.tenant_id).work_seconds += arrival.run_seconds

    def drop(self, job: Waiting, now: float) -> None:
        """A job is given up because it is late."""
        self.dropped += 1
        if job.attempt == 1:
            self._first(job, now, max(ROUNDING_SECONDS, now - job.deadline_at))

    def _first(self, job: Waiting, now: float, lateness: float) -> None:
        arrival, is_late = job.arrival, lateness > 0
        tenant, bin = self._tenant(arrival.tenant_id), self._bin(now)
        self._lateness.append(lateness)
        tenant.jobs += 1
        bin.starts += 1
        if arrival.priority == self._top:
            self._top_priority.jobs += 1
            self._top_priority.late += is_late
        if is_late:
            self.late += 1
            for each in (tenant, bin):
                each.late += 1
                each.worst_seconds = max(each.worst_seconds, lateness)

    def _tenant(self, tenant_id: str) -> TenantTally:
        found = self._tenants.get(tenant_id)
        if found is None:
            found = self._tenants[tenant_id] = TenantTally()
        return found

    def _bin(self, at: float) -> Bin:
        while at >= 2 * BINS * self._bin_seconds:
            self._join_bins()
        number = int(at / self._bin_seconds)
        while number >= len(self._bins):
            self._bins.append(Bin())
        return self._bins[number]

    def _join_bins(self) -> None:
        self._bin_seconds *= 2
        self._bins = [
            Bin(
                starts=sum(each.starts for each in pair),
                late=sum(each.late for each in pair),
                worst_seconds=max(each.worst_seconds for each in pair),
                busy_seconds=sum(each.busy_seconds for each in pair),
            )
            for pair in (self._bins[at : at + 2] for at in range(0, len(self._bins), 2))
        ]

    def _busy(self, begins: float, seconds: float) -> None:
        self._busy_seconds += seconds
        ends = begins + seconds
        self._bin(ends)
        bins, width = self._bins, self._bin_seconds
        number = int(begins / width)
        while begins < ends and number < len(bins):
            until = min(ends, (number + 1) * width)
            bins[number].busy_seconds += max(0.0, until - begins)
            begins, number = until, number + 1

    def figures(self, *, capacity: int, ended_at: float) -> Figures:
        """What it came to, with the last slot free again at *ended_at*."""
        lateness = sorted(self._lateness)
        late = [each for each in lateness if each > 0]
        quiet = _Part()
        for tenant_id, tenant in self._tenants.items():
            if tenant_id not in self._noisy:
                quiet.jobs += tenant.jobs
                quiet.late += tenant.late
        return Figures(
            jobs=len(lateness),
            late=self.late,
            late_share=self.late / max(1, len(lateness)),
            quiet_late_share=quiet.share if self._noisy else None,
            top_priority_late_share=self._top_priority.share,
            retries=self._retries.jobs,
            retries_late_share=self._retries.share,
            dropped=self.dropped,
            p50_late_seconds=_at(late, 0.5),
            p99_seconds=_at(lateness, 0.99),
            worst_seconds=_at(lateness, 1.0),
            slots_peak=self.slots_peak,
            utilisation=self._busy_seconds / (capacity * ended_at) if ended_at else 0.0,
            jain=_jain([1 - each.late / each.jobs for each in self._tenants.values()]),
            tenants=dict(sorted(self._tenants.items())),
            bin_seconds=self._bin_seconds,
            bins=self._bins,
        )


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def _jain(parts: Sequence[float]) -> float:
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares else 1.0
