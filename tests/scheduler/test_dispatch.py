"""One use case: which jobs are leased and sent, how many, and when the next pass comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from moving_parts import Events
from store.factories import MIDNIGHT, SUCCEEDED, JobFactory, SettableClock, ticket

from async_jobs.errors import TransportError
from async_jobs.models import JobStatus, Leased
from async_jobs.scheduler.dispatch import (
    GATHER_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SHORTEST_PAUSE_SECONDS,
    UNTIL_WOKEN_SECONDS,
    Dispatcher,
    Pass,
)
from async_jobs.scheduler.outstanding import RENEWAL_SECONDS
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.events import JobsLeased, SendFailed

from .conftest import FakeSender, MakeDispatcher


async def waiting(jobs: JobFactory, count: int, **fields: object) -> list[UUID]:
    """*count* waiting jobs, the first the most urgent."""
    return [
        (await jobs.waiting(delay_tolerance_seconds=60.0 + number, **fields)).id
        for number in range(count)
    ]


def ids(leased: list[Leased]) -> list[UUID]:
    return [job.job_id for job in leased]


async def test_the_earliest_deadline_goes_first_and_then_the_higher_priority(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    late = await jobs.waiting(delay_tolerance_seconds=90.0)
    low = await jobs.waiting(delay_tolerance_seconds=30.0)
    high = await jobs.waiting(delay_tolerance_seconds=30.0, priority=5)

    await make_dispatcher().dispatch()

    assert ids(sender.sent) == [high.id, low.id, late.id]


async def test_a_pass_leases_no_more_than_the_free_capacity(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    wanted = await waiting(jobs, 7)
    dispatcher = make_dispatcher(capacity=4)

    first, second = await dispatcher.dispatch(), await dispatcher.dispatch()

    assert ids(sender.sent) == wanted[:4]
    assert (first.sent, first.free, second.sent, second.free) == (4, 0, 0, 0)


async def test_running_jobs_and_leases_that_ran_out_take_their_slots(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender, clock: SettableClock
) -> None:
    await jobs.running()
    await jobs.leased()
    clock.advance(jobs.lease_seconds + 1)
    await waiting(jobs, 3)

    await make_dispatcher(capacity=3).dispatch()

    assert len(sender.sent) == 1


async def test_a_slot_is_refilled_when_its_job_has_finished(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender, store: JobStore
) -> None:
    running = await jobs.running()
    (next_up,) = await waiting(jobs, 1)
    dispatcher = make_dispatcher(capacity=1)
    await dispatcher.dispatch()
    assert sender.sent == []

    await store.finish([(running, SUCCEEDED)])
    await dispatcher.dispatch()

    assert ids(sender.sent) == [next_up]


async def test_the_lease_is_committed_before_anything_is_sent(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    job = await jobs.waiting()
    seen = []

    async def look(leased: Sequence[Leased]) -> None:
        seen.append(await jobs.row(job))

    sender.meanwhile = look
    await make_dispatcher().dispatch()

    (row,) = seen
    assert (row.lease_seq, row.due, row.leased_at) == (1, False, MIDNIGHT)
    assert row.lease_expires_at == MIDNIGHT + timedelta(seconds=RENEWAL_SECONDS)


async def test_a_tenant_never_holds_more_than_its_quota(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    await waiting(jobs, 5, tenant_id="acme")
    dispatcher = make_dispatcher(quotas={"acme": 2})

    await dispatcher.dispatch()
    await dispatcher.dispatch()

    assert [job.tenant_id for job in sender.sent] == ["acme", "acme"]


async def test_a_full_tenant_does_not_hold_up_the_others(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    """However many of its more urgent jobs stand in front of theirs."""
    await waiting(jobs, 40, tenant_id="acme")
    others = await jobs.waiting(tenant_id="bolt", delay_tolerance_seconds=5_000.0)
    dispatcher = make_dispatcher(quotas={"acme": 2})

    await dispatcher.dispatch()
    await dispatcher.dispatch()

    assert [job.tenant_id for job in sender.sent] == ["acme", "acme", "bolt"]
    assert sender.sent[-1].job_id == others.id


async def test_the_quota_of_everybody_holds_for_whom_none_is_named(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    for tenant in ("acme", "bolt"):
        await waiting(jobs, 4, tenant_id=tenant)

    await make_dispatcher(quotas={"*": 1, "bolt": 3}).dispatch()

    assert sorted(job.tenant_id for job in sender.sent) == ["acme", "bolt", "bolt", "bolt"]


async def test_what_a_tenant_runs_already_counts_towards_its_quota(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    await jobs.running(tenant_id="acme")
    await waiting(jobs, 3, tenant_id="acme")

    await make_dispatcher(quotas={"acme": 2}).dispatch()

    assert len(sender.sent) == 1


async def test_with_quotas_the_earliest_deadline_still_goes_first(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    order = [
        await jobs.waiting(tenant_id=tenant, delay_tolerance_seconds=tolerance)
        for tenant, tolerance in (("bolt", 10.0), ("acme", 20.0), ("bolt", 30.0), ("acme", 40.0))
    ]

    await make_dispatcher(capacity=3, quotas={"acme": 5, "bolt": 5}).dispatch()

    assert ids(sender.sent) == [job.id for job in order[:3]]


async def test_what_was_not_accepted_is_released_at_once_and_marked(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender, events: Events
) -> None:
    refused, accepted = await waiting(jobs, 2)
    sender.refuses = lambda job: job.job_id == refused

    done = await make_dispatcher().dispatch()

    row, sent_row = await jobs.row(refused), await jobs.row(accepted)
    assert done == Pass(sent=1, failed=1, free=8, reason="Throttled")
    assert (row.due, row.enqueue_failed, row.attempts) == (True, True, 0)
    assert (sent_row.due, sent_row.enqueue_failed) == (False, False)
    assert [(event.messages, event.reason) for event in events.of(SendFailed)] == [(1, "Throttled")]


async def test_a_job_that_was_not_accepted_is_sent_by_the_next_pass(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    job = await jobs.waiting()
    dispatcher = make_dispatcher()
    sender.refuses = lambda job: True
    await dispatcher.dispatch()

    sender.refuses = lambda job: False
    await dispatcher.dispatch()

    assert [(one.job_id, one.lease_seq) for one in sender.sent] == [(job.id, 2)]
    assert not (await jobs.row(job)).enqueue_failed


async def test_a_released_job_that_was_started_meanwhile_stays_with_its_worker(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender, store: JobStore
) -> None:
    """The queue took the message and its answer got lost."""
    job = await jobs.waiting()

    async def start(leased: Sequence[Leased]) -> None:
        await store.start([ticket(one) for one in leased], worker="ada", lease_seconds=30)

    sender.meanwhile = start
    sender.refuses = lambda job: True
    await make_dispatcher().dispatch()

    row = await jobs.row(job)
    assert (row.status, row.worker, row.enqueue_failed) == (JobStatus.RUNNING, "ada", False)


async def test_two_schedulers_together_stay_within_the_capacity(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    await waiting(jobs, 60)
    rivals = [make_dispatcher(capacity=25, quotas={"acme": 20}) for _ in range(4)]

    await asyncio.gather(*[rival.dispatch() for _ in range(5) for rival in rivals])
    await rivals[0].dispatch()

    assert len(sender.sent) == 20
    assert len(set(ids(sender.sent))) == 20


async def test_while_another_scheduler_has_the_turn_a_pass_does_nothing(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender, store: JobStore
) -> None:
    await waiting(jobs, 1)
    async with store.take_turn("mail"):
        done = await make_dispatcher().dispatch()

    assert (done.had_turn, sender.sent) == (False, [])


async def test_use_cases_do_not_share_their_capacity(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    await waiting(jobs, 2, use_case="mail")
    await waiting(jobs, 2, use_case="labels")

    await make_dispatcher("mail", capacity=1).dispatch()
    await make_dispatcher("labels", capacity=1).dispatch()

    assert len(sender.sent) == 2


async def test_a_dispatch_is_told(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, events: Events
) -> None:
    await jobs.running()
    await waiting(jobs, 2)

    await make_dispatcher(capacity=5).dispatch()

    (told,) = events.of(JobsLeased)
    assert (told.sent, told.failed, told.in_flight, told.capacity) == (2, 0, 3, 5)


async def test_a_pass_without_work_tells_nothing(
    make_dispatcher: MakeDispatcher, events: Events
) -> None:
    assert await make_dispatcher().dispatch() == Pass(free=10)
    assert events.seen == []


def pacing(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, done: Pass, now: float) -> None:
    async def dispatch() -> Pass:
        return done

    monkeypatch.setattr(dispatcher, "dispatch", dispatch)
    monkeypatch.setattr(dispatcher, "_monotonic", lambda: now)


SENT, SENT_AND_FULL = Pass(sent=3, free=2), Pass(sent=3, free=0)
FULL, IDLE, NO_TURN = Pass(free=0), Pass(free=5), Pass(had_turn=False)


@pytest.mark.parametrize(
    ("done", "quiet_seconds", "pause_seconds"),
    [
        (SENT, 0.0, 0.0),
        (SENT_AND_FULL, 0.0, SHORTEST_PAUSE_SECONDS),
        (FULL, 0.1, SHORTEST_PAUSE_SECONDS),
        (FULL, 4.0, 0.2),
        (FULL, 500.0, LONGEST_PAUSE_SECONDS),
        (NO_TURN, 4.0, 0.2),
        (IDLE, 0.0, SHORTEST_PAUSE_SECONDS),
        (IDLE, 0.1, 0.1),
        (IDLE, 0.3, UNTIL_WOKEN_SECONDS),
    ],
    ids=[
        "work left",
        "just full",
        "full",
        "full for long",
        "full for ages",
        "no turn",
        "just idle",
        "idle for a moment",
        "idle",
    ],
)
async def test_the_next_pass_comes_when_it_may_find_something(
    make_dispatcher: MakeDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    done: Pass,
    quiet_seconds: float,
    pause_seconds: float,
) -> None:
    dispatcher = make_dispatcher()
    pacing(dispatcher, monkeypatch, SENT_AND_FULL, 1_000.0)
    await dispatcher.tick()

    pacing(dispatcher, monkeypatch, done, 1_000.0 + quiet_seconds)

    assert await dispatcher.tick() == pytest.approx(pause_seconds)


async def test_a_queue_that_accepts_nothing_is_a_failure_of_the_loop(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    """So that it backs off and hints do not hurry it."""
    job = await jobs.waiting()
    sender.refuses = lambda job: True

    with pytest.raises(TransportError, match="mail-queue: Throttled"):
        await make_dispatcher().tick()
    assert (await jobs.row(job)).due


async def test_large_packs_are_made_only_when_slots_turn_over_quickly(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    await waiting(jobs, 450)
    dispatcher = make_dispatcher(capacity=450)

    await dispatcher.dispatch()

    assert sender.packs == [4]


async def test_a_pass_that_leased_all_it_may_is_followed_by_the_next_at_once(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("async_jobs.scheduler.dispatch.MOST_PER_PASS", 3)
    await waiting(jobs, 6)
    dispatcher = make_dispatcher(capacity=6)

    assert await dispatcher.tick() == 0.0
    assert await dispatcher.tick() > 0.0


async def test_what_comes_just_after_a_message_goes_with_the_next_and_hints_hurry_nothing(
    jobs: JobFactory, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    hurried: list[bool] = []
    dispatcher = make_dispatcher()

    async def hint_meanwhile(_: object) -> None:
        hurried.append(not dispatcher.stands_back)

    sender.meanwhile = hint_meanwhile
    await waiting(jobs, 2)

    pause = await dispatcher.tick()
    hurried.append(not dispatcher.stands_back)
    await dispatcher.tick()
    hurried.append(not dispatcher.stands_back)

    assert pause == GATHER_SECONDS
    assert hurried == [False, False, True]


async def test_from_the_table_a_hint_is_followed_at_once(
    jobs: JobFactory, make_dispatcher: MakeDispatcher
) -> None:
    """A lease is the message: the next costs nothing more."""
    await waiting(jobs, 2)
    dispatcher = make_dispatcher(uses_sqs=False)

    await dispatcher.tick()

    assert not dispatcher.stands_back
