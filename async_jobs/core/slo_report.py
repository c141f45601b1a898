"""What an operator is told about promises: one `UseCaseSlo` for each use case. Pure.

The store reads (`Reading`), `report` makes figures of it. Every figure is from bounded queries:
those that were cut off say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from async_jobs.core.demand import Step, required_slots
from async_jobs.core.run_times import UNKNOWN_SECONDS
from async_jobs.core.slo import (
    BURN_WINDOWS,
    EVERY_TENANT,
    WINDOWS,
    Alert,
    Histogram,
    Measure,
    Promises,
    Sums,
    alert_for,
    bucket_labels,
    jain_index,
)

MOST_TENANTS = 100


@dataclass(frozen=True, slots=True)
class Minute:
    """First starts of one minute; `lateness_seconds` is the sum over those that were late."""

    minutes_ago: int
    started: int
    late: int
    lateness_seconds: float

    @property
    def mean_lateness_seconds(self) -> float:
        return self.lateness_seconds / self.late if self.late else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A use case right now.

    `lateness_seconds` is that of its most urgent waiting job, `due_seconds` how long that one has
    waited.
    """

    use_case: str
    in_flight: int = 0
    lateness_seconds: float | None = None
    due_seconds: float | None = None
    lowered_capacity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantNow:
    """A tenant that holds slots of a use case or waits for some."""

    tenant_id: str
    held: int
    waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the database says, by use case; what is absent was not counted."""

    window: str
    tenant_id: str = EVERY_TENANT
    sums: Mapping[tuple[str, Measure, str], Sums] = field(default_factory=dict)
    histograms: Mapping[tuple[str, Measure], Histogram] = field(default_factory=dict)
    demand: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    pulses: Mapping[str, Pulse] = field(default_factory=dict)
    tenants: Mapping[str, Sequence[TenantNow]] = field(default_factory=dict)
    kept_by_tenant: Mapping[str, Mapping[str, Promises]] = field(default_factory=dict)

    def promises(self, use_case: str, window: str) -> Promises:
        """First starts in a window."""
        sums = self.sums.get((use_case, Measure.START, window), Sums())
        return Promises(sums.total, sums.late)

    def mean_run_seconds(self, use_case: str) -> float | None:
        """Of the shortest window in which anything ran; None if nothing did."""
        for window in WINDOWS:
            sums = self.sums.get((use_case, Measure.RUN, window), Sums())
            if sums.total:
                return sums.sum_seconds / sums.total
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the configuration says about a use case: its target, its capacity, tenants' weights."""

    target: float
    capacity: int
    weight_of: Callable[[str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramReport:
    """One measure in the window: a label and a count for each bucket."""

    labels: Sequence[str]
    buckets: Sequence[int]
    total: int
    late: int
    mean_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantReport:
    """A tenant's slots, its share of the capacity, and its promises of the last day if kept."""

    tenant_id: str
    held: int
    share: float
    waits: bool
    last_day: Promises | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCaseSlo:
    """How the promises of one use case are kept.

    `budget_left` is the part of the error budget of the last 30 days that is left, from 1 down to
    0 and below. `late_now`, `required_slots` and the steps of `demand` are least numbers where
    counting was cut off. `oldest_due_seconds` is how long the most urgent waiting job has been due,
    0 if none waits. `capacity` is what is in force, `configured_capacity` what was set.
    `mean_run_seconds` is None, and 1 s was assumed, if no run was recorded. `fairness_held` is
    Jain's index of slots ÷ weight over the tenants that wait, `fairness_kept` that of the share of
    promises kept in the last day; both are None unless tenants were asked for.
    """

    use_case: str
    tenant_id: str | None
    target: float
    last_hour: Promises
    last_day: Promises
    budget_left: float
    burn_rates: Mapping[str, float]
    alert: Alert
    window: str
    histograms: Mapping[str, HistogramReport]
    late_now: int
    late_now_cut: bool
    oldest_late_seconds: float
    oldest_due_seconds: float
    in_flight: int
    capacity: int
    configured_capacity: int
    required_slots: int
    required_slots_cut: bool
    mean_run_seconds: float | None
    demand: Sequence[Step]
    tenants: Sequence[TenantReport] = ()
    fairness_held: float | None = None
    fairness_kept: float | None = None


def report(use_case: str, reading: Reading, terms: Terms) -> UseCaseSlo:
    """The figures of one use case."""
    pulse = reading.pulses.get(use_case, Pulse(use_case=use_case))
    capacity = min(terms.capacity, pulse.lowered_capacity or terms.capacity)
    profile = reading.demand.get(use_case, ())
    late = profile[0] if profile else Step(0.0, 0)
    mean_run_seconds = reading.mean_run_seconds(use_case)
    need = required_slots(
        profile,
        mean_run_seconds=UNKNOWN_SECONDS if mean_run_seconds is None else mean_run_seconds,
        in_flight=pulse.in_flight,
    )
    burn_rates = _burn_rates(use_case, reading, terms.target)
    tenants = _tenants(use_case, reading, terms, capacity)
    return UseCaseSlo(
        use_case=use_case,
        tenant_id=reading.tenant_id or None,
        target=terms.target,
        last_hour=reading.promises(use_case, "1h"),
        last_day=reading.promises(use_case, "1d"),
        budget_left=reading.promises(use_case, "30d").budget_left(terms.target),
        burn_rates={window: burn_rates[window] for window in BURN_WINDOWS},
        alert=alert_for(burn_rates),
        window=reading.window,
        histograms=_histograms(use_case, reading),
        late_now=late.jobs,
        late_now_cut=late.cut,
        oldest_late_seconds=max(0.0, pulse.lateness_seconds or 0.0),
        oldest_due_seconds=max(0.0, pulse.due_seconds or 0.0),
        in_flight=pulse.in_flight,
        capacity=capacity,
        configured_capacity=terms.capacity,
        required_slots=need.slots,
        required_slots_cut=need.at_least,
        mean_run_seconds=mean_run_seconds,
        demand=profile,
        tenants=tenants,
        fairness_held=_fairness_held(tenants, terms),
        fairness_kept=_fairness_kept(tenants),
    )


def _burn_rates(use_case: str, reading: Reading, target: float) -> dict[str, float]:
    return {
        window: reading.promises(use_case, window).burn_rate(target)
        for window in (*BURN_WINDOWS, "30m")
    }


def _histograms(use_case: str, reading: Reading) -> dict[str, HistogramReport]:
    found = {
        measure: reading.histograms.get((use_case, measure), Histogram()) for measure in Measure
    }
    return {
        measure.value: HistogramReport(
            labels=bucket_labels(measure.bounds),
            buckets=each.buckets,
            total=each.total,
            late=each.late,
            mean_seconds=each.sum_seconds / each.total if each.total else None,
        )
        for measure, each in found.items()
    }


def _tenants(use_case: str, reading: Reading, terms: Terms, capacity: int) -> list[TenantReport]:
    """Most slots first; then those with broken promises that have no work now."""
    with_work = reading.tenants.get(use_case, ())
    kept = reading.kept_by_tenant.get(use_case, {})
    weights = {each.tenant_id: terms.weight_of(each.tenant_id) for each in with_work}
    slots_per_weight = capacity / sum(weights.values()) if weights else 0.0
    idle = [
        TenantNow(tenant_id=tenant_id, held=0, waits=False)
        for tenant_id in kept
        if tenant_id not in weights
    ]
    return [
        TenantReport(
            tenant_id=each.tenant_id,
            held=each.held,
            share=weights.get(each.tenant_id, 0.0) * slots_per_weight,
            waits=each.waits,
            last_day=kept.get(each.tenant_id),
        )
        for each in (*with_work, *idle)
    ][:MOST_TENANTS]


def _fairness_held(tenants: Sequence[TenantReport], terms: Terms) -> float | None:
    return jain_index(each.held / terms.weight_of(each.tenant_id) for each in tenants if each.waits)


def _fairness_kept(tenants: Sequence[TenantReport]) -> float | None:
    shares = [each.last_day.kept_share for each in tenants if each.last_day is not None]
    return jain_index(share for share in shares if share is not None)
