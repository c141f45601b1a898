"""The scheduler's moves: promote, lease, release, rescue, prune, survey."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from async_jobs.core.fairness import Flow
from async_jobs.models import JobStatus, Ticket
from async_jobs.store.jobs import JobStore
from async_jobs.store.turn import InFlight

from .factories import (
    BURIED,
    LEASE_SECONDS,
    MIDNIGHT,
    RETRIED,
    RETRIED_AT_ONCE,
    SUCCEEDED,
    JobFactory,
    SettableClock,
    new_job,
    ticket,
)

SOON = MIDNIGHT + timedelta(seconds=10)


# Promote


async def test_a_scheduled_job_is_promoted_when_its_time_has_come(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.waiting(run_at=SOON)
    early = await store.promote_due(10)
    clock.advance(10)
    on_time = await store.promote_due(10)

    assert (early, on_time) == (Counter(), Counter(mail=1))
    assert (await jobs.row(job)).due


async def test_a_promotion_takes_the_earliest_first_and_no_more_than_asked(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    late, early = [await jobs.waiting(run_at=SOON - timedelta(seconds=s)) for s in (1, 2)]
    clock.advance(60)

    await store.promote_due(1)

    assert ((await jobs.row(early)).due, (await jobs.row(late)).due) == (True, False)


async def test_a_promotion_leaves_leased_and_finished_jobs_alone(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.leased()
    await jobs.running()
    await jobs.finished()
    clock.advance(10_000)

    assert not await store.promote_due(10)


# Lease


async def test_a_lease_is_written_on_the_row(jobs: JobFactory) -> None:
    job = await jobs.waiting()

    (leased,) = await jobs.lease()

    row = await jobs.row(job)
    assert (leased.job_id, leased.lease_seq) == (job.id, 1)
    assert (row.status, row.due, row.lease_seq, row.attempts) == (JobStatus.PENDING, False, 1, 0)
    assert (row.leased_at, row.lease_expires_at) == (
        MIDNIGHT,
        MIDNIGHT + timedelta(seconds=LEASE_SECONDS),
    )


async def test_the_most_urgent_jobs_are_leased_most_urgent_first(jobs: JobFactory) -> None:
    wanted = [
        await jobs.waiting(delay_tolerance_seconds=tolerance, priority=priority)
        for tolerance, priority in [(99, 32_767), (9, 0), (1, 0), (5, 0), (5, 3), (5, 0)]
    ]

    leased = await jobs.lease(5)

    assert [wanted[n].id for n in (2, 4, 3, 5, 1)] == [job.job_id for job in leased]


async def test_a_lease_keeps_to_its_use_case(jobs: JobFactory) -> None:
    await jobs.waiting(use_case="label")

    assert list(await jobs.lease()) == []


async def test_scheduled_leased_running_and_finished_jobs_are_not_leased(
    jobs: JobFactory,
) -> None:
    await jobs.waiting(run_at=SOON)
    await jobs.leased()
    await jobs.running()
    await jobs.finished()

    assert list(await jobs.lease()) == []


async def test_no_slots_lease_nothing(jobs: JobFactory) -> None:
    await jobs.waiting()

    assert list(await jobs.lease(0)) == []


async def test_every_lease_has_a_larger_number(store: JobStore, jobs: JobFactory) -> None:
    leased = await jobs.leased()
    for expected in (2, 3, 4):
        await store.release([ticket(leased)], enqueue_failed=False)
        leased = await jobs.lease_again(leased.job_id)

        assert leased.lease_seq == expected


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

    assert held == InFlight(held={"acme": 2, "bolt": 1}, unstarted=1)


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


# Release


@pytest.mark.parametrize("enqueue_failed", [True, False])
async def test_a_released_job_waits_again_as_it_was(
    store: JobStore, jobs: JobFactory, enqueue_failed: bool
) -> None:
    leased = await jobs.leased()

    took_effect = await store.release([ticket(leased)], enqueue_failed=enqueue_failed)

    row = await jobs.row(leased)
    assert (took_effect, row.due, row.attempts, row.lease_seq) == (1, True, 0, 1)
    assert (row.leased_at, row.enqueue_failed) == (None, enqueue_failed)


async def test_the_next_lease_forgets_that_a_message_was_not_accepted(
    store: JobStore, jobs: JobFactory
) -> None:
    leased = await jobs.leased()
    await store.release([ticket(leased)], enqueue_failed=True)

    await jobs.lease_again(leased.job_id)

    assert not (await jobs.row(leased)).enqueue_failed


async def test_only_the_lease_of_the_ticket_is_released(store: JobStore, jobs: JobFactory) -> None:
    old = await jobs.leased()
    await store.release([ticket(old)], enqueue_failed=False)
    await jobs.lease_again(old.job_id)
    running = await jobs.running()
    waiting = await jobs.waiting()

    took_effect = await store.release(
        [ticket(old), ticket(running), Ticket(waiting.id, 0)], enqueue_failed=True
    )

    assert took_effect == 0


# Rescue


async def test_a_lease_that_is_alive_is_not_rescued(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.leased()
    await jobs.running()
    clock.advance(LEASE_SECONDS - 0.001)

    assert await store.rescue(10) == []


async def test_a_lost_message_costs_no_attempt(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    before = await jobs.row(await jobs.leased())
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    row = await jobs.row(before.id)
    assert (rescued.was_running, rescued.status) == (False, JobStatus.PENDING)
    assert (row.due, row.attempts, row.last_error) == (True, 0, None)
    assert (row.run_at, row.deadline_at) == (before.run_at, before.deadline_at)


async def test_a_lost_worker_costs_the_attempt_it_had_started(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    row = await jobs.row(job)
    assert (rescued.was_running, rescued.status, rescued.worker) == (
        True,
        JobStatus.PENDING,
        "worker-1",
    )
    assert (row.due, row.attempts, row.lease_seq) == (True, 1, 1)
    assert (row.run_at, row.first_run_at) == (clock.now(), MIDNIGHT)
    assert row.deadline_at == clock.now() + timedelta(seconds=60)
    assert row.last_error is not None
    assert (row.last_error["type"], row.last_error["attempt"]) == ("WorkerLost", 1)


async def test_a_job_whose_last_attempt_was_lost_is_dead(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running(max_attempts=1)
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    row = await jobs.row(job)
    assert rescued.status is row.status is JobStatus.DEAD
    assert (row.due, row.finished_at, row.leased_at) == (False, clock.now(), None)
    assert (row.run_at, row.deadline_at) == (job.run_at, job.deadline_at)


async def test_a_lost_worker_does_not_bring_back_a_cancelled_job(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    await store.cancel(job.id)
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    assert rescued.status is JobStatus.CANCELLED
    assert (await jobs.row(job)).finished_at == clock.now()


async def test_a_rescue_says_was_running_only_of_what_ran(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    job = await jobs.running()
    clock.advance(LEASE_SECONDS)
    await store.rescue(10)
    await jobs.lease_again(job.id)
    clock.advance(LEASE_SECONDS)

    (rescued,) = await store.rescue(10)

    assert not rescued.was_running


async def test_a_rescue_takes_the_longest_lost_first_and_no_more_than_asked(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    first = await jobs.leased()
    clock.advance(1)
    await jobs.leased()
    clock.advance(LEASE_SECONDS)

    rescued = await store.rescue(1)

    assert [job.job_id for job in rescued] == [first.job_id]


async def test_a_foreign_last_error_does_not_stop_the_rescue(
    store: JobStore, jobs: JobFactory, clock: SettableClock, db: psycopg.Connection[Any]
) -> None:
    await jobs.leased()
    await jobs.leased()
    db.execute('UPDATE jobs SET last_error = \'{"lease_seq": "three"}\'')
    clock.advance(LEASE_SECONDS)

    rescued = await store.rescue(10)

    assert [job.was_running for job in rescued] == [False, False]


# Prune


async def test_only_finished_jobs_older_than_the_retention_are_deleted(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    old = [await jobs.finished(SUCCEEDED), await jobs.finished(BURIED)]
    running = await jobs.running()
    waiting = await jobs.finished(RETRIED)
    other = await jobs.finished(use_case="label")
    clock.advance(100)
    young = await jobs.finished(SUCCEEDED)
    clock.advance(1)

    deleted = await store.prune("mail", retention_seconds=100, most=10)

    assert deleted == 2
    assert [await store.get(job.id) for job in old] == [None, None]
    assert all([await store.get(job.id) for job in (running, waiting, other, young)])


async def test_a_prune_takes_the_oldest_first_and_no_more_than_asked(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    oldest = await jobs.finished()
    clock.advance(1)
    younger = await jobs.finished()
    clock.advance(100)

    assert await store.prune("mail", retention_seconds=5, most=1) == 1
    assert (await store.get(oldest.id), bool(await store.get(younger.id))) == (None, True)


# Survey


async def test_a_survey_of_an_empty_table_finds_nothing(store: JobStore) -> None:
    survey = await store.survey(["mail"])

    assert survey.use_cases_with_work == []
    assert (survey.next_due_in_seconds, survey.next_expiry_in_seconds) == (None, None)


async def test_a_survey_tells_what_there_is_and_what_comes_next(
    store: JobStore, jobs: JobFactory
) -> None:
    await store.enqueue([new_job(use_case="label"), new_job(use_case="unknown")])
    for seconds in (20.0, 7.5):
        await jobs.waiting(run_at=MIDNIGHT + timedelta(seconds=seconds))
    await jobs.leased(use_case="thumb")

    survey = await store.survey(["label", "mail", "thumb"])

    assert survey.use_cases_with_work == ["label"]
    assert survey.next_due_in_seconds == 7.5
    assert survey.next_expiry_in_seconds == LEASE_SECONDS


async def test_a_survey_tells_what_is_late_as_negative_seconds(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    await jobs.waiting(run_at=SOON)
    await jobs.running()
    clock.advance(LEASE_SECONDS + 5)

    survey = await store.survey(["mail"])

    assert (survey.next_due_in_seconds, survey.next_expiry_in_seconds) == (-25.0, -5.0)
