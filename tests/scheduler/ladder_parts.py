"""What the tests of rates, breakers and backpressure share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from store.factories import SUCCEEDED, JobFactory, new_job

from async_jobs.config import TenantQuota
from async_jobs.core.endings import Endings, FlowKey
from async_jobs.models import Leased, StartedJob
from async_jobs.store.jobs import JobStore

MAIL = FlowKey("mail", "acme", "send")
PRESSED = Endings(pressed=frozenset({"mail"}))
QUOTAS = {"acme": TenantQuota(rate_per_second=2.0, burst=3)}


async def wait(store: JobStore, count: int, **fields: object) -> None:
    fields = {"delay_tolerance_seconds": 100_000.0, **fields}
    await store.enqueue([new_job(**fields) for _ in range(count)])


async def finish(store: JobStore, jobs: JobFactory, leased: Sequence[Leased]) -> list[StartedJob]:
    """Start and end *leased* well."""
    started = [await jobs.start(job) for job in leased]
    await store.finish([(job, SUCCEEDED) for job in started])
    return started


def by_tenant(leased: Sequence[Leased]) -> dict[str, int]:
    return dict(Counter(job.tenant_id for job in leased))
