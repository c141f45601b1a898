"""What a pass must keep to beside the capacity: rates, open breakers, lowered capacity.

    before the choice    `begin` reads the control tables and decides: which flows are shut, which
                         get a probe, how much capacity there is, how far ahead tenants are
    after the lease      `leased` writes down what the leases used up
    after the commit     `tell` says which steps were taken; each is told once, by the replica
                         that took it

Everything between happens in the turn, so replicas agree and rates are exact. A use case in
good health costs nothing here: its control tables are empty, which the turn knows from its
first statement. Only quotas with a rate are read in every pass.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from async_jobs.config import TenantQuota, UseCaseConfig
from async_jobs.core.backpressure import Lowered, next_level, seconds_to_next
from async_jobs.core.breaker import Breaker, Step, next_step, seconds_to_probe
from async_jobs.core.rate import Rate
from async_jobs.models import Leased
from async_jobs.quota import EVERY_TENANT
from async_jobs.store.ladder import Rates, TenantType
from async_jobs.telemetry import events as ev
from async_jobs.telemetry.bus import Bus

JUDGE_EVERY_SECONDS = 1.0
PRUNE_EVERY_SECONDS = 30.0


class Tables(Protocol):
    """The control tables of the use case, in its turn."""

    async def find_breakers(self) -> dict[TenantType, Breaker]: ...

    async def find_failing(self) -> dict[TenantType, Breaker]: ...

    async def open_breakers(self, flows: Sequence[TenantType]) -> None: ...

    async def probe_breakers(self, flows: Sequence[TenantType]) -> None: ...

    async def close_breakers(self, flows: Sequence[TenantType]) -> None: ...

    async def get_capacity(self) -> Lowered | None: ...

    async def set_capacity(self, capacity: int, *, moved_seconds: float) -> None: ...

    async def restore_capacity(self) -> None: ...

    async def find_rates(self) -> Rates: ...

    async def set_rates(self, now: datetime, ahead_seconds: Mapping[str, float]) -> None: ...

    async def prune(self) -> None: ...


class LadderTurn(Protocol):
    """What a ladder may do in its turn; `controlled`: some control table has rows."""

    @property
    def controlled(self) -> bool: ...

    @property
    def controls(self) -> Tables: ...


@dataclass(slots=True)
class Footing:
    """What holds for one pass, and what was decided in it.

    `wait_seconds` is how long until something may be leased that may not now.
    """

    capacity: int
    shut: set[TenantType] = field(default_factory=set)
    probes: set[TenantType] = field(default_factory=set)
    rates: Rates | None = None
    wait_seconds: float = math.inf
    told: list[ev.Event] = field(default_factory=list)

    def wait_at_most(self, seconds: float) -> None:
        self.wait_seconds = min(self.wait_seconds, seconds)


class Ladder:
    """The control state of one use case, as one dispatcher sees it.

    `has_rates` says whether any tenant's quota has a rate.
    """

    def __init__(
        self,
        use_case: UseCaseConfig,
        quotas: Mapping[str, TenantQuota],
        *,
        bus: Bus,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._use_case = use_case
        self._rate_of = {tenant: _rate(quota) for tenant, quota in quotas.items()}
        self.has_rates = any(self._rate_of.values())
        self._bus = bus
        self._monotonic = monotonic
        self._judged_at = -math.inf
        self._pruned_at = -math.inf

    async def begin(self, turn: LadderTurn, slots: int) -> Footing:
        """Read what holds now and take the steps that are due, if there are *slots* to give."""
        footing = Footing(self._use_case.max_concurrent)
        if slots <= 0:
            return footing
        if turn.controlled:
            await self._level(turn.controls, footing)
            if self._use_case.breaker == "on":
                await self._judge_open(turn.controls, footing)
                await self._judge_closed(turn.controls, footing)
        if self.has_rates:
            footing.rates = await turn.controls.find_rates()
        if turn.controlled or self.has_rates:
            await self._prune(turn.controls)
        return footing

    def tokens(self, footing: Footing, tenant_id: str) -> int | None:
        """How many jobs the tenant's rate lets go now; None if it has none."""
        rate = self._rate(tenant_id)
        if rate is None or footing.rates is None:
            return None
        return rate.allowed(footing.rates.ahead_seconds.get(tenant_id, 0.0))

    async def leased(self, turn: LadderTurn, footing: Footing, leased: Iterable[Leased]) -> None:
        """Write down which probes went and what rates were used up."""
        leased = list(leased)
        probed = {(job.tenant_id, job.type) for job in leased} & footing.probes
        if probed:
            await turn.controls.probe_breakers(sorted(probed))
            footing.told += [
                ev.BreakerProbed(use_case=self._use_case.name, tenant_id=tenant_id, type=type)
                for tenant_id, type in sorted(probed)
            ]
        if footing.rates is not None:
            await self._move_rates(turn.controls, footing, footing.rates, leased)

    def tell(self, footing: Footing) -> None:
        """Tell the steps that were taken; call it once they are committed."""
        for event in footing.told:
            self._bus.emit(event)

    async def _level(self, tables: Tables, footing: Footing) -> None:
        lowered = await tables.get_capacity()
        if lowered is None:
            return
        name, full = self._use_case.name, self._use_case.max_concurrent
        before = full if lowered.capacity is None else lowered.capacity
        level = next_level(lowered, full)
        footing.capacity = level.capacity
        footing.wait_at_most(max(1.0, seconds_to_next(lowered)))
        if level.capacity >= full:
            await tables.restore_capacity()
            if before < full:
                footing.told.append(ev.CapacityRestored(use_case=name, capacity=full))
        elif level.moved_seconds is not None:
            await tables.set_capacity(level.capacity, moved_seconds=level.moved_seconds)
            if level.capacity < before:
                footing.told.append(
                    ev.CapacityLowered(use_case=name, capacity=level.capacity, full=full)
                )

    async def _judge_open(self, tables: Tables, footing: Footing) -> None:
        breakers = await tables.find_breakers()
        steps = {flow: next_step(breaker) for flow, breaker in breakers.items()}
        closing = [flow for flow, step in steps.items() if step is Step.CLOSE]
        footing.shut = breakers.keys() - set(closing)
        footing.probes = {flow for flow, step in steps.items() if step is Step.PROBE}
        for flow in footing.shut - footing.probes:
            footing.wait_at_most(seconds_to_probe(breakers[flow]))
        if closing:
            await tables.close_breakers(closing)
        footing.told += [
            ev.BreakerClosed(
                use_case=self._use_case.name,
                tenant_id=tenant_id,
                type=type,
                open_seconds=breakers[tenant_id, type].open_seconds or 0.0,
            )
            for tenant_id, type in closing
        ]

    async def _judge_closed(self, tables: Tables, footing: Footing) -> None:
        now = self._monotonic()
        if now - self._judged_at < JUDGE_EVERY_SECONDS:
            return
        self._judged_at = now
        failing = await tables.find_failing()
        opening = [
            flow
            for flow, breaker in failing.items()
            if flow not in footing.shut and next_step(breaker) is Step.OPEN
        ]
        if opening:
            await tables.open_breakers(opening)
        footing.shut |= set(opening)
        footing.told += [
            ev.BreakerOpened(
                use_case=self._use_case.name,
                tenant_id=tenant_id,
                type=type,
                ended=failing[tenant_id, type].ended,
                failed=failing[tenant_id, type].failed,
            )
            for tenant_id, type in opening
        ]

    async def _move_rates(
        self, tables: Tables, footing: Footing, rates: Rates, leased: Sequence[Leased]
    ) -> None:
        ahead = dict(rates.ahead_seconds)
        moved = {}
        for tenant_id, jobs in Counter(job.tenant_id for job in leased).items():
            if (rate := self._rate(tenant_id)) is not None:
                moved[tenant_id] = rate.ahead_after(ahead.get(tenant_id, 0.0), jobs)
        if moved:
            await tables.set_rates(rates.now, moved)
        for tenant_id, seconds in {**ahead, **moved}.items():
            rate = self._rate(tenant_id)
            if rate is not None and not rate.allowed(seconds):
                footing.wait_at_most(rate.wait_seconds(seconds))

    async def _prune(self, tables: Tables) -> None:
        now = self._monotonic()
        if now - self._pruned_at >= PRUNE_EVERY_SECONDS:
            self._pruned_at = now
            await tables.prune()

    def _rate(self, tenant_id: str) -> Rate | None:
        if tenant_id in self._rate_of:
            return self._rate_of[tenant_id]
        return self._rate_of.get(EVERY_TENANT)


def _rate(quota: TenantQuota) -> Rate | None:
    if quota.rate_per_second is None:
        return None
    return Rate(quota.rate_per_second, quota.most_at_once)
