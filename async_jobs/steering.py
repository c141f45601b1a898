"""See it and steer it: why a job waits, who is alive, and what operators may change at run time.

`Steering` is the part of the JobService that operators use. What they change is kept in the
database, with an audit line in the same statement, and every process takes it up within seconds:
schedulers and workers when they next say that they live (`runtime/presence.py`), producers when
they next look, at most five seconds later. The environment remains the default.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from async_jobs.config import AsyncJobsConfig, TenantQuota, UseCaseConfig
from async_jobs.core.explain import Bounds, Explanation, Snapshot, explain
from async_jobs.core.exposition import Figures
from async_jobs.core.forecast import Demand
from async_jobs.core.overrides import (
    CAPACITY,
    PAUSED,
    TENANT_SETTINGS,
    AuditLine,
    Override,
    ProcessSeen,
)
from async_jobs.core.rate import Rate
from async_jobs.core.scaling import (
    LEAD_SECONDS,
    WITHIN_SECONDS,
    Load,
    Scaling,
    arrivals_of,
    scaling,
)
from async_jobs.core.slo import EVERY_TENANT, WINDOWS
from async_jobs.core.slo_report import MOST_TENANTS, Minute, Reading, Terms, UseCaseSlo, report
from async_jobs.errors import ConfigError, InvalidJob, JobNotFound, UnknownUseCase
from async_jobs.store.hints import OVERRIDES_CHANGED

READ_EVERY_SECONDS = 5.0
READ_WITHIN_SECONDS = 0.5
MOST_AUDIT_LINES = 1_000
UNNAMED = "unnamed"


class OverridesDesk(Protocol):
    """The store's moves on overrides, processes and the audit."""

    async def snapshot(self, job_id: UUID, *, tenant_id: str | None = None) -> Snapshot | None: ...

    async def find_overrides(self) -> list[Override]: ...

    async def set_overrides(
        self,
        changes: Mapping[str, object],
        *,
        actor: str,
        move: str,
        use_case: str = "",
        tenant_id: str = "",
    ) -> bool: ...

    async def find_processes(self) -> list[ProcessSeen]: ...

    async def ask_to_stop(self, name: str, *, actor: str) -> bool: ...

    async def find_audit(
        self, *, before_id: int | None = None, tenant_id: str | None = None, most: int = 100
    ) -> list[AuditLine]: ...


class SteeringDesk(Protocol):
    """The store's moves that steering makes."""

    @property
    def origin(self) -> object: ...

    @property
    def steering(self) -> OverridesDesk: ...

    @property
    def slo(self) -> SloDesk: ...

    async def hint(self, topics: Sequence[str]) -> None: ...

    async def read_demand(self, use_case: str) -> Demand: ...


class SloDesk(Protocol):
    """Reads the SLO record."""

    async def read(
        self, use_cases: Sequence[str], *, window: str, tenant_id: str, most_tenants: int
    ) -> Reading: ...

    async def count_dead_rows(self) -> int: ...

    async def sum_minutes(self, use_cases: Sequence[str], minutes: int) -> list[Minute]: ...


@dataclass(slots=True)
class _Known:
    """The overrides as last read, and the configuration under them."""

    overrides: Sequence[Override] = ()
    next_read_at: float = 0.0
    plain: AsyncJobsConfig | None = None
    steered: AsyncJobsConfig | None = None


_known: WeakKeyDictionary[object, _Known] = WeakKeyDictionary()
"""For each pool, because a router may make a service for every request."""


class Steering:
    """What operators may see and change."""

    def __init__(self, config: AsyncJobsConfig, desk: SteeringDesk) -> None:
        self._config = config
        self._desk = desk

    async def explain(self, job_id: UUID, *, tenant_id: str | None = None) -> Explanation:
        """Where the job is and why, the decisive cause first; two bounded statements.

        Raises JobNotFound, also for a job of another tenant than *tenant_id*.
        """
        snapshot = await self._desk.steering.snapshot(job_id, tenant_id=tenant_id)
        if snapshot is None:
            raise JobNotFound(job_id)
        overrides = await self._desk.steering.find_overrides()
        return explain(snapshot, _bounds(steered(self._config, overrides), overrides, snapshot))

    async def slo(
        self,
        use_case: str | None = None,
        *,
        tenant_id: str | None = None,
        tenants: bool = False,
        window: str = "1h",
    ) -> Sequence[UseCaseSlo]:
        """How promises are kept: in *use_case*, or in every configured one.

        With *tenant_id*, counts are that tenant's, as far as ASYNC_JOBS_SLO_BY_TENANT keeps them.
        *tenants* adds who holds slots or waits, at most 100 of them. *window* is that of the
        histograms: 5m, 30m, 1h, 6h, 1d, 3d or 30d.

        Raises UnknownUseCase, InvalidJob for another window, StoreUnavailable.
        """
        if window not in WINDOWS:
            raise InvalidJob("window", "unknown_window", f"must be one of {', '.join(WINDOWS)}")
        config = await self.effective_config()
        names = config.use_cases if use_case is None else [self._use_case(use_case).name]
        asked = [config.use_cases[name] for name in names]
        reading = await self._desk.slo.read(
            [each.name for each in asked],
            window=window,
            tenant_id=tenant_id or EVERY_TENANT,
            most_tenants=MOST_TENANTS if tenants else 0,
        )
        return [report(each.name, reading, _terms(each, config)) for each in asked]

    async def scaling(
        self,
        use_case: str | None = None,
        *,
        slots_per_worker: int | None = None,
        within_seconds: float = WITHIN_SECONDS,
        lead_seconds: float = LEAD_SECONDS,
    ) -> Scaling:
        """The workers that keep every promise of the next *within_seconds*.

        For *use_case*, or for all that are configured together. A worker has *slots_per_worker*,
        ASYNC_JOBS_WORKER_CONCURRENCY unless given, and works *lead_seconds* after it was asked for.
        Bounded statements; a paused use case needs no more than it runs.

        Raises UnknownUseCase, StoreUnavailable.
        """
        return await self._scaling(
            await self.slo(use_case),
            slots_per_worker=slots_per_worker,
            within_seconds=within_seconds,
            lead_seconds=lead_seconds,
        )

    async def figures(self) -> Figures:
        """What Prometheus and meters are told of the whole system; bounded statements."""
        found = await self.slo()
        return Figures(
            use_cases=found,
            processes=await self.processes(),
            workers_needed=(await self._scaling(found)).workers,
            dead_rows=await self._desk.slo.count_dead_rows(),
        )

    async def _scaling(
        self,
        found: Sequence[UseCaseSlo],
        *,
        slots_per_worker: int | None = None,
        within_seconds: float = WITHIN_SECONDS,
        lead_seconds: float = LEAD_SECONDS,
    ) -> Scaling:
        paused = paused_by(await self._desk.steering.find_overrides())
        return scaling(
            [await self._load(each, paused=each.use_case in paused) for each in found],
            slots_per_worker=slots_per_worker or self._config.worker_concurrency,
            within_seconds=within_seconds,
            lead_seconds=lead_seconds,
        )

    async def _load(self, found: UseCaseSlo, *, paused: bool) -> Load:
        arrivals = () if paused else arrivals_of(await self._desk.read_demand(found.use_case))
        return Load(
            use_case=found.use_case,
            profile=() if paused else found.demand,
            in_flight=found.in_flight,
            capacity=found.capacity,
            mean_run_seconds=found.mean_run_seconds,
            arrivals=arrivals,
        )

    async def pause(self, use_case: str, *, actor: str = UNNAMED) -> bool:
        """Lease no more jobs of *use_case*; what runs goes on. False if it was paused already.

        Raises UnknownUseCase.
        """
        return await self._set(use_case, {PAUSED: True}, "pause", actor)

    async def resume(self, use_case: str, *, actor: str = UNNAMED) -> bool:
        """Lease jobs of *use_case* again; False if it was not paused. Raises UnknownUseCase."""
        return await self._set(use_case, {PAUSED: None}, "resume", actor)

    async def scale(self, use_case: str, capacity: int | None, *, actor: str = UNNAMED) -> bool:
        """Set the capacity of *use_case*, 1 to 100,000; None: as the environment says.

        False if that changes nothing. Raises UnknownUseCase, and InvalidJob for another capacity.
        """
        if capacity is not None:
            _checked("capacity", lambda: UseCaseConfig(name="checked", max_concurrent=capacity))
        return await self._set(use_case, {CAPACITY: capacity}, "scale", actor)

    async def set_quota(
        self, tenant_id: str, *, actor: str = UNNAMED, **settings: float | None
    ) -> bool:
        """Set what a tenant may have; None: as the environment says.

        *settings* are max_pending_jobs, max_concurrent_jobs, rate_per_second, burst and weight.
        False if that changes nothing. Raises InvalidJob for another name or value.
        """
        for name in settings:
            if name not in TENANT_SETTINGS:
                text = f"is no setting of a tenant; those are {', '.join(TENANT_SETTINGS)}"
                raise InvalidJob(name, "unknown_field", text)
        overrides = await self._desk.steering.find_overrides()
        mine = {one.setting: one.value for one in overrides if one.tenant_id == tenant_id}
        wanted = _without_none({**mine, **settings})
        quota = self._config.quota_for(tenant_id)
        _checked("quota", lambda: _with(quota, wanted))
        changed = await self._desk.steering.set_overrides(
            settings, actor=actor, move="quota", tenant_id=tenant_id
        )
        await self._told()
        return changed

    async def overrides(self) -> Sequence[Override]:
        """Everything that is not as the environment says."""
        return await self._desk.steering.find_overrides()

    async def processes(self) -> Sequence[ProcessSeen]:
        """Schedulers and workers seen within a day, at most 1,000."""
        return await self._desk.steering.find_processes()

    async def stop_process(self, name: str, *, actor: str = UNNAMED) -> bool:
        """Ask a process to stop as SIGTERM does; False if there is none, or it was asked before.

        It learns of it within twenty seconds.
        """
        return await self._desk.steering.ask_to_stop(name, actor=actor)

    async def audit(
        self, *, before_id: int | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> Sequence[AuditLine]:
        """Who did what, newest first, 1 to 1,000 lines; `before_id` continues a page."""
        if not 1 <= limit <= MOST_AUDIT_LINES:
            raise InvalidJob("limit", "out_of_range", f"must be from 1 to {MOST_AUDIT_LINES}")
        return await self._desk.steering.find_audit(
            before_id=before_id, tenant_id=tenant_id, most=limit
        )

    async def effective_config(self) -> AsyncJobsConfig:
        """The configuration with what operators have set; read at most once in five seconds.

        When the database does not answer, what was known before goes on to hold.
        """
        known = _known.setdefault(self._desk.origin, _Known())
        if time.monotonic() >= known.next_read_at:
            known.next_read_at = time.monotonic() + READ_EVERY_SECONDS
            try:
                async with asyncio.timeout(READ_WITHIN_SECONDS):
                    found = await self._desk.steering.find_overrides()
            except Exception:
                # Whatever it was: it is no reason to refuse a job.
                found = list(known.overrides)
            if found != known.overrides:
                known.overrides, known.steered = found, None
        if known.steered is None or known.plain is not self._config:
            known.plain, known.steered = self._config, steered(self._config, known.overrides)
        return known.steered

    async def _set(
        self, use_case: str, changes: Mapping[str, object], move: str, actor: str
    ) -> bool:
        name = self._use_case(use_case).name
        changed = await self._desk.steering.set_overrides(
            changes, actor=actor, move=move, use_case=name
        )
        await self._told()
        return changed

    async def _told(self) -> None:
        """Wake the schedulers that listen; the others learn of it a few seconds later."""
        known = _known.get(self._desk.origin)
        if known is not None:
            known.next_read_at = 0.0
        await self._desk.hint([OVERRIDES_CHANGED])

    def _use_case(self, name: Any) -> UseCaseConfig:
        use_case = self._config.use_case(name) if isinstance(name, str) else None
        if use_case is None:
            raise UnknownUseCase
        return use_case


def steered(config: AsyncJobsConfig, overrides: Sequence[Override]) -> AsyncJobsConfig:
    """*config* with *overrides* laid over it; what does not fit it has no effect."""
    if not overrides:
        return config
    use_cases, quotas = dict(config.use_cases), dict(config.per_tenant_quotas)
    for one in overrides:
        if one.setting == CAPACITY and one.use_case in use_cases:
            with suppress(ConfigError):
                plain = use_cases[one.use_case]
                use_cases[one.use_case] = replace(plain, max_concurrent=one.value)
    for tenant_id in {one.tenant_id for one in overrides if one.tenant_id}:
        mine = {one.setting: one.value for one in overrides if one.tenant_id == tenant_id}
        with suppress(ConfigError):
            quotas[tenant_id] = _with(config.quota_for(tenant_id), mine)
    return replace(config, use_cases=use_cases, per_tenant_quotas=quotas)


def _terms(use_case: UseCaseConfig, config: AsyncJobsConfig) -> Terms:
    return Terms(
        target=use_case.slo_target,
        capacity=use_case.max_concurrent,
        weight_of=lambda tenant_id: config.quota_for(tenant_id).weight,
    )


def paused_by(overrides: Sequence[Override]) -> dict[str, str]:
    """The use cases that are paused, and who paused them."""
    return {
        one.use_case: one.changed_by for one in overrides if one.setting == PAUSED and one.value
    }


def _bounds(config: AsyncJobsConfig, overrides: Sequence[Override], snapshot: Snapshot) -> Bounds:
    quota = config.quota_for(snapshot.tenant_id)
    use_case = config.use_case(snapshot.use_case) or UseCaseConfig(name=snapshot.use_case)
    rate = quota.rate_per_second
    return Bounds(
        capacity=use_case.max_concurrent,
        most_in_flight=quota.max_concurrent_jobs,
        rate=None if rate is None else Rate(rate, quota.most_at_once),
        paused_by=paused_by(overrides).get(snapshot.use_case),
    )


def _with(quota: TenantQuota, settings: Mapping[str, Any]) -> TenantQuota:
    known = {name: value for name, value in settings.items() if name in TENANT_SETTINGS}
    return replace(quota, **known)


def _without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _checked(field: str, make: Any) -> None:
    try:
        make()
    except ConfigError as error:
        raise InvalidJob(field, "out_of_range", error.problems[0].partition(": ")[2]) from None
