"""What `async-jobs top` shows: every use case and who is alive, at one moment. Pure.

The use cases whose promises are most in danger come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from async_jobs.core.demand import Band, bands
from async_jobs.core.explain import GONE_AFTER_SECONDS
from async_jobs.core.overrides import ProcessSeen, alive
from async_jobs.core.slo import Alert
from async_jobs.core.slo_report import UseCaseSlo

_URGENCY = {Alert.PAGE: 0, Alert.TICKET: 1, Alert.NONE: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCaseNow:
    """One use case; `cut`: at least so many wait, counting stopped there.

    `kept_share` is that of the last hour, None if nothing started; `slack` has the waiting jobs by
    the time that is left for them, late ones first.
    """

    use_case: str
    waiting: int
    late: int
    cut: bool
    in_flight: int
    capacity: int
    oldest_due_seconds: float
    kept_share: float | None
    alert: str
    paused_by: str | None
    slack: Sequence[Band]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The system at one moment; *gone* are processes that went without a word, within a day."""

    at: datetime
    use_cases: Sequence[UseCaseNow]
    schedulers: int
    workers: int
    gone: int


def sample(
    found: Sequence[UseCaseSlo],
    processes: Sequence[ProcessSeen],
    *,
    paused_by: Mapping[str, str],
    at: datetime,
) -> Sample:
    """What there is to show of *found* and *processes*."""
    living = alive(processes)
    urgent_first = sorted(
        found, key=lambda each: (_URGENCY[each.alert], -each.late_now, each.use_case)
    )
    return Sample(
        at=at,
        use_cases=[_now(each, paused_by.get(each.use_case)) for each in urgent_first],
        schedulers=living["scheduler"],
        workers=living["worker"],
        gone=sum(one.seen_seconds >= GONE_AFTER_SECONDS for one in processes),
    )


def _now(found: UseCaseSlo, paused_by: str | None) -> UseCaseNow:
    return UseCaseNow(
        use_case=found.use_case,
        waiting=sum(step.jobs for step in found.demand),
        late=found.late_now,
        cut=any(step.cut for step in found.demand),
        in_flight=found.in_flight,
        capacity=found.capacity,
        oldest_due_seconds=found.oldest_due_seconds,
        kept_share=found.last_hour.kept_share,
        alert=found.alert.value,
        paused_by=paused_by,
        slack=bands(found.demand),
    )
