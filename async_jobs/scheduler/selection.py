"""Reads what a choice needs from the table, lets `core.fairness` choose, and leases the chosen.

Three ways, the cheapest that is right:

    in order        no late job, no limits: one statement leases the earliest deadlines
    looked through  limits, but the earliest deadlines break none: they are leased as they are
    chosen          something is late, or a limit stands in the way: the heads of all flows are
                    read (a few pages for each flow, whatever waits behind it), then the jobs of
                    the lanes that can win, then `choose` decides

With very many flows a pass reads a window of them that moves on with every pass, and always
the most urgent jobs of all. What is remembered between passes (credits, run times, the
window's place) is lost with the process and costs precision only, never a limit.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nsmallest
from itertools import product
from typing import Protocol
from uuid import UUID

from async_jobs.core.fairness import (
    Credits,
    Flow,
    Head,
    Listed,
    Rank,
    Terms,
    choose,
)
from async_jobs.core.run_times import RunTimes
from async_jobs.models import Leased
from async_jobs.store.turn import BEFORE_ALL, Run, WaitingFlow, WaitingJob

MOST_FLOWS = 500
LEAST_PER_LANE = 4
ROWS_PER_SLOT = 2
MOST_READS = 4
MOST_RUNS = 200
MEASURE_EVERY_SECONDS = 0.5

Monotonic = Callable[[], float]


class SelectionTurn(Protocol):
    """What a selection may do in its turn."""

    @property
    def pressure(self) -> bool: ...

    async def lease_due(self, slots: int, *, lease_seconds: float) -> list[Leased]: ...

    async def lease_chosen(
        self, ids: Sequence[UUID], *, lease_seconds: float, probes: Collection[UUID] = ()
    ) -> list[Leased]: ...

    async def find_due(self, most: int, *, timely: bool) -> list[WaitingJob]: ...

    async def find_flows(self, most: int, *, after: Flow = BEFORE_ALL) -> list[WaitingFlow]: ...

    async def find_candidates(
        self, lanes: Sequence[tuple[Flow, bool]], most: int
    ) -> list[list[WaitingJob]]: ...

    async def sample_finished(self, most: int, *, since: datetime | None) -> list[Run]: ...


def _no_bound(tenant_id: str) -> int | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one pass must keep to.

    `most_held` is the most a tenant may hold, `tokens` the most it may get now;
    None: no bound. Flows are shut, or get one probe, by (tenant, type).
    """

    capacity: int
    most_held: Callable[[str], int | None] = _no_bound
    tokens: Callable[[str], int | None] = _no_bound
    shut: Collection[tuple[str, str]] = ()
    probes: Collection[tuple[str, str]] = ()
    bounds_tenants: bool = False

    @property
    def is_free(self) -> bool:
        """Whether nothing but the capacity limits this pass."""
        return not self.bounds_tenants and not self.shut

    def rooms(self, tenants: Iterable[str], held: Mapping[str, int]) -> dict[str, int]:
        """How many more jobs each bounded tenant may get in this pass."""
        rooms = {}
        for tenant in tenants:
            most, tokens = self.most_held(tenant), self.tokens(tenant)
            bounds = [] if most is None else [most - held.get(tenant, 0)]
            bounds += [] if tokens is None else [tokens]
            if bounds:
                rooms[tenant] = max(0, min(bounds))
        return rooms

    def is_shut(self, flow: Flow) -> bool:
        return (flow.tenant_id, flow.type) in self.shut

    def waits_for_itself(self, flow: Flow) -> bool:
        """Shut, or of a tenant whose rate is used up: a free slot would not help its jobs."""
        return self.is_shut(flow) or self.tokens(flow.tenant_id) == 0

    def is_closed(self, flow: Flow) -> bool:
        """Shut, and without a probe in this pass."""
        return self.is_shut(flow) and (flow.tenant_id, flow.type) not in self.probes


@dataclass(slots=True)
class _Found:
    """The flows a pass looks at, and the jobs read with them."""

    flows: list[WaitingFlow]
    jobs: dict[tuple[Flow, bool], list[WaitingJob]] = field(default_factory=dict)


class Selection:
    """Leases the right jobs of one use case.

    Pressure outlasts the turn that saw a late job by `pressure_lasts_seconds`.
    """

    def __init__(
        self,
        weight_of: Callable[[str], float],
        *,
        lease_seconds: float,
        pressure_lasts_seconds: float = 0.0,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        self.run_times = RunTimes()
        self.pressure = False
        """Whether the last pass shared out slots fairly, as far as it looked."""
        self.took_all = False
        """Whether the last pass left no job that waits."""
        self._weight_of = weight_of
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._credits = Credits()
        self._after = BEFORE_ALL
        self._seen: dict[str, int] = {}
        self._rotation = 0
        self._pressure_lasts_seconds = pressure_lasts_seconds
        self._late_seen_at = -math.inf
        self._measured_at = -math.inf
        self._measured_to: datetime | None = None

    async def lease(
        self, turn: SelectionTurn, limits: Limits, held: Mapping[str, int], slots: int
    ) -> list[Leased]:
        """Lease up to *slots* jobs; most urgent first."""
        pressure = self.pressure = self._is_pressed(turn)
        self.took_all = False
        if slots <= 0:
            return []
        if not pressure:
            if limits.is_free:
                leased = await turn.lease_due(slots, lease_seconds=self._lease_seconds)
                self.took_all = len(leased) < slots
                return leased
            first = await turn.find_due(slots, timely=False)
            if _fits(first, limits, held):
                return await self._lease(turn, [job.job_id for job in first], ())
        return await self._choose(turn, limits, held, slots, pressure=pressure)

    def _is_pressed(self, turn: SelectionTurn) -> bool:
        if not self._pressure_lasts_seconds:
            return turn.pressure
        now = self._monotonic()
        if turn.pressure:
            self._late_seen_at = now
        return now - self._late_seen_at < self._pressure_lasts_seconds

    async def _choose(
        self,
        turn: SelectionTurn,
        limits: Limits,
        held: Mapping[str, int],
        slots: int,
        *,
        pressure: bool,
    ) -> list[Leased]:
        await self._measure(turn)
        found = await self._find(turn, slots)
        lasts = pressure and self._pressure_lasts_seconds > 0
        self.pressure = lasts or _is_any_late(found.flows, limits)
        terms = self._terms(limits, held)
        rooms = limits.rooms({each.flow.tenant_id for each in found.flows}, held)
        wanted = _lanes_that_can_win(found, terms, limits, held, rooms, slots)
        lanes = await _filled(turn, wanted, found, limits, slots)
        for _ in range(MOST_READS):
            credits = deepcopy(self._credits)
            chosen = choose(lanes, terms, slots=slots, held=held, room=rooms, credits=credits)
            dry = [number for number, lane in enumerate(lanes) if lane.is_dry]
            if len(chosen) == slots or not dry:
                break
            await _read_on(turn, lanes, dry, slots)
        self._credits = credits
        probes = {job.job_id for job in chosen if limits.is_shut(job.flow)}
        return await self._lease(turn, [job.job_id for job in chosen], probes)

    async def _lease(
        self, turn: SelectionTurn, ids: Sequence[UUID], probes: Collection[UUID]
    ) -> list[Leased]:
        if not ids:
            return []
        return await turn.lease_chosen(ids, lease_seconds=self._lease_seconds, probes=probes)

    async def _measure(self, turn: SelectionTurn) -> None:
        now = self._monotonic()
        if now - self._measured_at < MEASURE_EVERY_SECONDS:
            return
        self._measured_at = now
        runs = await turn.sample_finished(MOST_RUNS, since=self._measured_to)
        for run in reversed(runs):
            self.run_times.add(run.tenant_id, run.type, run.ran_seconds)
            self._measured_to = run.finished_at

    async def _find(self, turn: SelectionTurn, slots: int) -> _Found:
        began = self._after
        flows = await turn.find_flows(MOST_FLOWS, after=began)
        whole = began == BEFORE_ALL
        if len(flows) < MOST_FLOWS and not whole:
            self._rotation += 1
            known = {each.flow for each in flows}
            again = await turn.find_flows(MOST_FLOWS - len(flows))
            flows += [each for each in again if each.flow not in known]
        cut = len(flows) >= MOST_FLOWS
        self._after = flows[-1].flow if cut else BEFORE_ALL
        self._remember(flows, all_of_them=whole and not cut)
        if not cut:
            return _Found(flows)
        return await _with_the_most_urgent(turn, flows, slots)

    def _remember(self, flows: Iterable[WaitingFlow], *, all_of_them: bool) -> None:
        """Which tenants have work: a window shows only some, so the last rotation counts too."""
        if all_of_them:
            self._seen.clear()
        self._seen.update((each.flow.tenant_id, self._rotation) for each in flows)
        if not all_of_them:
            self._seen = {
                tenant: rotation
                for tenant, rotation in self._seen.items()
                if rotation >= self._rotation - 1
            }

    def _terms(self, limits: Limits, held: Mapping[str, int]) -> Terms:
        with_work = self._seen.keys() | held.keys()
        return Terms(
            capacity=limits.capacity,
            now=0.0,
            pressure=self.pressure,
            total_weight=sum(map(self._weight_of, with_work)),
            weight_of=self._weight_of,
            mean_seconds=self.run_times.mean_seconds,
        )


def _is_any_late(flows: Iterable[WaitingFlow], limits: Limits) -> bool:
    """Whether a job is late that a slot would help: others would give way to it for nothing."""
    return any(each.slack_seconds < 0 and not limits.waits_for_itself(each.flow) for each in flows)


def _fits(jobs: Sequence[WaitingJob], limits: Limits, held: Mapping[str, int]) -> bool:
    """Whether leasing all of *jobs* keeps to the limits."""
    wanted = Counter(job.flow.tenant_id for job in jobs)
    rooms = limits.rooms(wanted, held)
    if any(wanted[tenant] > room for tenant, room in rooms.items()):
        return False
    return not any(limits.is_shut(job.flow) for job in jobs)


async def _with_the_most_urgent(
    turn: SelectionTurn, flows: list[WaitingFlow], slots: int
) -> _Found:
    """The window's flows, and the most urgent jobs of the flows outside it."""
    found = _Found(flows)
    inside = {each.flow for each in flows}
    for timely in (False, True) if turn.pressure else (True,):
        outside: defaultdict[Flow, list[WaitingJob]] = defaultdict(list)
        for job in await turn.find_due(slots, timely=timely):
            if job.flow not in inside and (job.slack_seconds >= 0) == timely:
                outside[job.flow].append(job)
        for flow, jobs in outside.items():
            slack = jobs[0].slack_seconds
            found.flows.append(
                WaitingFlow(
                    flow=flow, slack_seconds=slack, timely_slack_seconds=slack if timely else None
                )
            )
            found.jobs[flow, not timely] = jobs
    return found


def _lanes_that_can_win(
    found: _Found,
    terms: Terms,
    limits: Limits,
    held: Mapping[str, int],
    rooms: Mapping[str, int],
    slots: int,
) -> list[tuple[Flow, bool]]:
    """Of each kind (late or timely, first attempt or retry), every lane of the first tenants.

    A tenant behind *slots* others of its kind gets nothing: a rank only ever grows, so
    each of those gets a slot before it.
    """
    kinds: dict[tuple[bool, bool], list[tuple[Rank, Flow]]] = {}
    for late, each in product((False, True), found.flows):
        flow, slack = each.flow, _slack(each, late=late)
        if slack is None or rooms.get(flow.tenant_id, 1) <= 0 or limits.is_closed(flow):
            continue
        rank = terms.rank(flow, slack, late=late, held=held.get(flow.tenant_id, 0))
        kinds.setdefault((late, flow.is_retry), []).append((rank, flow))
    lanes = [
        (flow, late)
        for (late, _), ranked in kinds.items()
        for flow in _of_the_first_tenants(ranked, slots)
    ]
    return _one_lane_for_each_probe(lanes, limits)


def _of_the_first_tenants(ranked: Sequence[tuple[Rank, Flow]], most: int) -> list[Flow]:
    best: dict[str, Rank] = {}
    for rank, flow in ranked:
        best[flow.tenant_id] = min(rank, best.get(flow.tenant_id, rank))
    first = set(nsmallest(most, best, key=best.__getitem__))
    return [flow for _, flow in ranked if flow.tenant_id in first]


def _slack(each: WaitingFlow, *, late: bool) -> float | None:
    if not late:
        return each.timely_slack_seconds
    return each.slack_seconds if each.slack_seconds < 0 else None


def _one_lane_for_each_probe(
    lanes: list[tuple[Flow, bool]], limits: Limits
) -> list[tuple[Flow, bool]]:
    probed = set()
    kept = []
    for flow, late in lanes:
        if limits.is_shut(flow):
            if flow[:2] in probed:
                continue
            probed.add(flow[:2])
        kept.append((flow, late))
    return kept


async def _filled(
    turn: SelectionTurn,
    wanted: Sequence[tuple[Flow, bool]],
    found: _Found,
    limits: Limits,
    slots: int,
) -> list[Listed[WaitingJob]]:
    """The wanted lanes with their jobs, read from the table where they are not known yet."""
    unread = [lane for lane in wanted if lane not in found.jobs]
    most = min(slots, max(LEAST_PER_LANE, math.ceil(ROWS_PER_SLOT * slots / max(1, len(unread)))))
    read = await turn.find_candidates(unread, most) if unread else []
    jobs_of = {**found.jobs, **dict(zip(unread, read, strict=True))}
    return [
        _listed(flow, jobs, late=late, cut=len(jobs) == most and not limits.is_shut(flow))
        for flow, late in wanted
        if (jobs := jobs_of[flow, late][: 1 if limits.is_shut(flow) else None])
    ]


async def _read_on(
    turn: SelectionTurn, lanes: list[Listed[WaitingJob]], dry: Sequence[int], slots: int
) -> None:
    """Read as much of the dry lanes as could ever be chosen; all lanes begin anew."""
    more = await turn.find_candidates([(lanes[n].flow, lanes[n].late) for n in dry], slots)
    for lane in lanes:
        lane.rewind()
    for number, jobs in zip(dry, more, strict=True):
        lane = lanes[number]
        lanes[number] = _listed(lane.flow, jobs, late=lane.late, cut=False)


def _listed(flow: Flow, jobs: Iterable[WaitingJob], *, late: bool, cut: bool) -> Listed[WaitingJob]:
    heads = [(Head(job.slack_seconds, job.job_id), job) for job in jobs]
    return Listed(flow, heads, late=late, cut=cut)
