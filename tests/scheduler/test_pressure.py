"""Late jobs that no slot would help put nobody else under pressure."""

from __future__ import annotations

import pytest
from moving_parts import Events
from store.factories import SettableClock

from async_jobs.config import TenantQuota
from async_jobs.core.endings import Count, Endings
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry import events as ev

from .conftest import FakeSender, MakeDispatcher
from .ladder_parts import MAIL, by_tenant, wait

SLOW = TenantQuota(rate_per_second=0.001, burst=1)


async def held_back(
    store: JobStore, sender: FakeSender, make: MakeDispatcher, clock: SettableClock, why: str
) -> dict[str, TenantQuota]:
    """A late job of acme that may not go, and the quotas that go with it."""
    quotas = {"acme": SLOW} if why == "its rate is used up" else {}
    if why == "its flow is shut":
        await store.report_endings(Endings({MAIL: Count(20, 20)}), ["mail"])
        clock.advance(5)
    if quotas:
        await wait(store, 1)
        await make(capacity=10, quotas=quotas).dispatch()
        sender.sent.clear()
    await wait(store, 1, delay_tolerance_seconds=1.0)
    clock.advance(2)
    return quotas


@pytest.mark.parametrize("why", ["its flow is shut", "its rate is used up", "nothing"])
async def test_only_late_jobs_that_may_go_make_others_give_way(
    store: JobStore,
    sender: FakeSender,
    make_clocked_dispatcher: MakeDispatcher,
    clock: SettableClock,
    events: Events,
    why: str,
) -> None:
    quotas = await held_back(store, sender, make_clocked_dispatcher, clock, why)
    await wait(store, 6, tenant_id="bolt", delay_tolerance_seconds=60.0)
    await wait(store, 6, tenant_id="core", delay_tolerance_seconds=61.0)

    await make_clocked_dispatcher(capacity=7, quotas=quotas).dispatch()

    sent = by_tenant(sender.sent)
    began = events.of(ev.PressureBegan)
    if why == "nothing":
        assert sent["bolt"] < 6
        assert len(began) == 1
    else:
        assert sent["bolt"] == 6
        assert not began
