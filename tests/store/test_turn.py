"""What a scheduler sees and leases in its turn."""

from __future__ import annotations

from datetime import timedelta

import pytest

from async_jobs.core.fairness import Flow
from async_jobs.store.jobs import JobStore
from async_jobs.store.turn import NEW_CLAIM_SECONDS

from .factories import (
    LEASE_SECONDS,
    RETRIED_AT_ONCE,
    SUCCEEDED,
    JobFactory,
    SettableClock,
    granted,
)


async def test_in_flight_jobs_are_counted_by_tenant_and_use_case(
    store: JobStore, jobs: JobFactory
) -> None:
    await jobs.leased()
    await jobs.running()
    await jobs.running(tenant_id="bolt")
    await jobs.running(use_case="label")
    await jobs.waiting()
    await jobs.finished()

    async with store.take_turn("mail") as turn:
        assert turn is not None
        held = await turn.count_in_flight()

    assert (held.held, held.unstarted) == ({"acme": 2, "bolt": 1}, 1)


async def test_a_claim_in_flight_is_told_for_a_second(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    """What was leased first and started later was not claimed."""
    await jobs.leased()
    clock.advance(0.002)
    await store.start_leased(["mail-queue"], slots=1, worker="w", lease_seconds=LEASE_SECONDS)
    leased = await store.count_in_flight("mail")
    await jobs.waiting()
    await granted(store, capacity=5)
    await store.claims.claim(
        ["mail"], ["mail-queue"], slots=1, worker="w", lease_seconds=LEASE_SECONDS
    )
    claimed = await store.count_in_flight("mail")
    clock.advance(NEW_CLAIM_SECONDS)
    later = await store.count_in_flight("mail")

    assert [seen.claimed for seen in (leased, claimed, later)] == [False, True, False]


async def test_a_lease_that_ran_out_counts_until_it_is_rescued(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.running()
    clock.advance(LEASE_SECONDS + 1)

    async with store.take_turn("mail") as turn:
        assert turn is not None
        before = await turn.count_in_flight()
    await store.rescue(10)
    async with store.take_turn("mail") as turn:
        assert turn is not None
        after = await turn.count_in_flight()

    assert (before.held, after.held) == ({"acme": 1}, {})


async def test_it_counts_on_the_databases_own_clock_too(live_store: JobStore) -> None:
    jobs = JobFactory(live_store, lease_seconds=0.0)
    await jobs.leased()

    async with live_store.take_turn("mail") as turn:
        assert turn is not None
        assert (await turn.count_in_flight()).held == {"acme": 1}


async def test_only_one_scheduler_has_the_turn_of_a_use_case(store: JobStore) -> None:
    async with (
        store.take_turn("mail") as first,
        store.take_turn("mail") as second,
        store.take_turn("label") as other,
    ):
        turns = (first is not None, second is not None, other is not None)
    async with store.take_turn("mail") as after:
        free_again = after is not None

    assert turns == (True, False, True)
    assert free_again


async def test_a_turn_that_fails_leases_nothing(store: JobStore, jobs: JobFactory) -> None:
    job = await jobs.waiting()

    async def fail_in_turn() -> None:
        async with store.take_turn("mail") as turn:
            assert turn is not None
            await turn.lease_due(1, lease_seconds=5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_turn()

    assert (await jobs.row(job)).due


FLOWS = [
    Flow("acme", "call", False, 0),
    Flow("acme", "send", False, 0),
    Flow("acme", "send", False, 7),
    Flow("acme", "send", True, 0),
    Flow("bolt", "send", False, -3),
]


async def test_flows_are_found_each_with_its_slack(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    for number, flow in enumerate(FLOWS):
        for extra in (0.0, 50.0):
            await _wait_in(flow, jobs, tolerance=10.0 * (number + 1) + extra)
    await jobs.waiting(tenant_id="dune", use_case="label")
    await jobs.leased(tenant_id="dune")
    clock.advance(25.0)

    async with store.take_turn("mail") as turn:
        assert turn is not None
        assert turn.pressure
        found = await turn.find_flows(10)
        first, rest = await turn.find_flows(2), await turn.find_flows(10, after=FLOWS[1])

    slacks = [(each.slack_seconds, each.timely_slack_seconds) for each in found]
    assert [each.flow for each in found] == FLOWS
    assert slacks == [(-15, 35), (-5, 45), (5, 5), (15, 15), (25, 25)]
    assert [*first, *rest] == found


async def _wait_in(flow: Flow, jobs: JobFactory, *, tolerance: float) -> None:
    fields = {"tenant_id": flow.tenant_id, "type": flow.type, "priority": flow.priority}
    if not flow.is_retry:
        await jobs.waiting(**fields, delay_tolerance_seconds=tolerance)
        return
    await jobs.finished(RETRIED_AT_ONCE, **fields, delay_tolerance_seconds=tolerance)


async def test_candidates_are_the_first_of_each_lane(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    made = [
        (await jobs.waiting(tenant_id=tenant, delay_tolerance_seconds=tolerance)).id
        for tenant in ("acme", "bolt")
        for tolerance in (40, 10, 30, 20)
    ]
    clock.advance(25.0)
    acme, bolt = Flow("acme", "send"), Flow("bolt", "send")

    async with store.take_turn("mail") as turn:
        assert turn is not None
        found = await turn.find_candidates([(acme, True), (bolt, False), (acme, False)], 1)
        whole = await turn.find_candidates([(bolt, True)], 9)

    assert [[job.job_id for job in lane] for lane in found] == [[made[1]], [made[6]], [made[2]]]
    assert [job.slack_seconds for job in whole[0]] == [-15, -5]


async def test_the_most_urgent_are_found_whatever_their_flow(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    made = [
        (await jobs.waiting(tenant_id=tenant, delay_tolerance_seconds=tolerance)).id
        for tenant, tolerance in (("acme", 40), ("bolt", 10), ("core", 30), ("dune", 20))
    ]
    clock.advance(25.0)

    async with store.take_turn("mail") as turn:
        assert turn is not None
        all_of_them = await turn.find_due(3, timely=False)
        timely = await turn.find_due(3, timely=True)

    assert [job.job_id for job in all_of_them] == [made[1], made[3], made[2]]
    assert [job.job_id for job in timely] == [made[2], made[0]]


async def test_the_newest_finished_jobs_tell_how_long_they_ran(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    for seconds in (3.0, 5.0, 7.0):
        job = await jobs.running()
        clock.advance(seconds)
        await store.finish([(job, SUCCEEDED)])
    middle = clock.at - timedelta(seconds=7)

    async with store.take_turn("mail") as turn:
        assert turn is not None
        newest = await turn.sample_finished(2, since=None)
        since = await turn.sample_finished(9, since=middle)

    assert [run.ran_seconds for run in newest] == [7, 5]
    assert [run.ran_seconds for run in since] == [7]


async def test_chosen_jobs_are_leased_as_far_as_they_still_wait(
    store: JobStore, jobs: JobFactory
) -> None:
    waiting, other = await jobs.waiting(), await jobs.waiting()
    leased, done = await jobs.leased(), await jobs.finished()

    async with store.take_turn("mail") as turn:
        assert turn is not None
        chosen = await turn.lease_chosen([leased.job_id, done.id, waiting.id], lease_seconds=5)

    assert [job.job_id for job in chosen] == [waiting.id]
    assert (await jobs.row(other)).due
