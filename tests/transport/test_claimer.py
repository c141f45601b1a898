"""A busy worker claims what waits; an idle one asks for nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from moving_parts import Events
from store.factories import LEASE_SECONDS, JobFactory

from async_jobs.core.claims import Claimed
from async_jobs.errors import StoreUnavailable
from async_jobs.models import StartedJob
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.events import JobsLeased
from async_jobs.transport.claimer import (
    CLAIM_FIRST_SECONDS,
    NO_LEAVE_IF_FULL_SECONDS,
    NO_LEAVE_SECONDS,
    PICK_EVERY_SECONDS,
    STAYS_BUSY_SECONDS,
    STEADY_JOBS,
    STEADY_SECONDS,
    Claimer,
)
from async_jobs.transport.postgres import FIRST_PAUSE_SECONDS, SOON_SECONDS, PostgresReceiver

QUEUE = "mail-queue"
POLL_SECONDS = 1.0


@dataclass
class SetMonotonic:
    at: float = 100.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Bench:
    """A receiver that claims, on a store, with a clock of its own."""

    store: JobStore
    events: Events = field(default_factory=Events)
    monotonic: SetMonotonic = field(default_factory=SetMonotonic)

    def __post_init__(self) -> None:
        claimer = Claimer(
            self.store.claims,
            ["mail"],
            [QUEUE],
            worker="w",
            lease_seconds=LEASE_SECONDS,
            bus=self.events.bus,
            monotonic=self.monotonic,
        )
        self.receiver = PostgresReceiver(
            self.store,
            [QUEUE],
            worker="w",
            lease_seconds=LEASE_SECONDS,
            poll_interval_seconds=POLL_SECONDS,
            claimer=claimer,
        )

    async def grant(self, capacity: int = 10) -> bool:
        """Give leave, if the worker asked for it."""
        async with self.store.take_turn("mail") as turn:
            assert turn is not None
            await turn.grant(capacity, seconds=3_600.0)
            return turn.asked

    async def start(self, slots: int) -> list[StartedJob]:
        return await self.receiver.start(slots)


@pytest.fixture
def bench(store: JobStore) -> Bench:
    return Bench(store)


async def test_a_worker_whose_slots_are_filled_asks_and_then_claims(
    bench: Bench, jobs: JobFactory
) -> None:
    leased = await jobs.leased()
    waiting = await jobs.waiting()

    picked = await bench.start(1)
    asked = await bench.grant()
    claimed = await bench.start(1)

    assert [job.id for job in picked] == [leased.job_id]
    assert asked
    assert [job.id for job in claimed] == [waiting.id]


async def test_a_worker_with_slots_left_asks_for_nothing_but_uses_what_others_asked_for(
    bench: Bench, jobs: JobFactory
) -> None:
    await jobs.leased()
    waiting = await jobs.waiting()

    await bench.start(2)

    assert not await bench.grant()
    await bench.store.claims.ask(["mail"])
    await bench.grant()
    bench.monotonic.at += NO_LEAVE_SECONDS
    assert [job.id for job in await bench.start(2)] == [waiting.id]


async def test_a_worker_to_which_jobs_come_one_after_the_other_asks_too(
    bench: Bench, jobs: JobFactory
) -> None:
    for _ in range(STEADY_JOBS - 1):
        await jobs.leased()
        await bench.start(2)
    before = await bench.grant(0)

    await jobs.leased()
    await bench.start(2)

    assert (before, await bench.grant()) == (False, True)


async def test_jobs_that_come_now_and_then_are_not_one_after_the_other(
    bench: Bench, jobs: JobFactory
) -> None:
    for _ in range(3 * STEADY_JOBS):
        await jobs.leased()
        await bench.start(2)
        bench.monotonic.at += 2 * STEADY_SECONDS / STEADY_JOBS

    assert not await bench.grant()


async def test_with_leave_it_claims_at_the_hint_of_a_producer(
    bench: Bench, jobs: JobFactory
) -> None:
    """However long it has had nothing to do, and without a look for leased jobs before."""
    await bench.store.claims.ask(["mail"])
    await bench.grant()
    waiting = await jobs.waiting()
    without = await bench.start(2)

    bench.receiver.heard_due("mail")
    with_hint = await bench.start(2)

    assert (without, [job.id for job in with_hint]) == ([], [waiting.id])


async def test_without_leave_the_hints_of_producers_cost_it_two_looks_a_second(
    bench: Bench, jobs: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_at: list[float] = []
    claim = bench.store.claims.claim

    async def counted(*given: Any, **more: Any) -> Claimed | None:
        asked_at.append(bench.monotonic.at)
        return await claim(*given, **more)

    monkeypatch.setattr(bench.store.claims, "claim", counted)
    for _ in range(100):
        bench.receiver.heard_due("mail")
        bench.receiver.heard_due("of somebody else")
        if bench.receiver._bell.is_set():
            await bench.start(2)
        bench.monotonic.at += 0.01

    assert len(asked_at) == 2


async def test_after_all_that_waited_it_looks_again_soon_and_then_later_and_later(
    bench: Bench, jobs: JobFactory
) -> None:
    """A hint speaks for a moment; with room or a turn missing it would look every 20 ms."""
    await bench.store.claims.ask(["mail"])
    await bench.grant()
    await jobs.waiting()
    bench.receiver.heard_due("mail")

    pauses = []
    for _ in range(4):
        await bench.start(2)
        pauses.append(bench.receiver._pause_seconds)
        bench.monotonic.at += 0.01

    assert pauses == [min(POLL_SECONDS, SOON_SECONDS * 4**n) for n in range(4)]


async def test_what_was_leased_for_it_comes_before_what_it_claims(
    bench: Bench, jobs: JobFactory
) -> None:
    await jobs.leased()
    await bench.start(1)
    await bench.grant()
    waiting = await jobs.waiting(delay_tolerance_seconds=1.0)
    leased = await jobs.leased()
    bench.receiver.ring(QUEUE)

    both = await bench.start(2)

    assert [job.id for job in both] == [leased.job_id, waiting.id]


async def test_without_leave_it_tries_again_a_moment_later_or_at_a_hint(
    bench: Bench, jobs: JobFactory
) -> None:
    await jobs.leased()
    await jobs.waiting()
    await jobs.waiting()
    await bench.start(1)
    refused = await bench.start(1)
    await bench.grant()

    too_soon = await bench.start(1)
    bench.receiver.ring(QUEUE)
    at_a_hint = await bench.start(1)

    assert (refused, too_soon) == ([], [])
    assert len(at_a_hint) == 1


async def test_it_tries_again_without_hints_too(bench: Bench, jobs: JobFactory) -> None:
    await jobs.leased()
    await jobs.waiting()
    await bench.start(1)
    await bench.start(1)
    await bench.grant()

    bench.monotonic.at += NO_LEAVE_IF_FULL_SECONDS

    assert len(await bench.start(1)) == 1


async def test_a_while_after_it_was_busy_it_claims_no_more(bench: Bench, jobs: JobFactory) -> None:
    await jobs.leased()
    await jobs.waiting()
    await bench.start(1)
    await bench.grant()

    bench.monotonic.at += STAYS_BUSY_SECONDS

    assert await bench.start(1) == []


@pytest.mark.parametrize("has_leave", [True, False])
async def test_only_while_jobs_wait_for_which_there_is_leave_do_its_pauses_stay_short(
    bench: Bench, jobs: JobFactory, has_leave: bool
) -> None:
    await jobs.leased()
    await jobs.waiting()
    await bench.start(1)
    if has_leave:
        await bench.grant(1)

    for _ in range(5):
        await bench.start(1)

    assert (bench.receiver._pause_seconds == FIRST_PAUSE_SECONDS) == has_leave


async def test_it_asks_for_no_use_case_that_it_does_not_know(
    bench: Bench, jobs: JobFactory
) -> None:
    await jobs.leased(use_case="label")

    await bench.start(1)

    async with bench.store.take_turn("label") as turn:
        assert turn is not None
        assert not turn.asked


async def test_a_claim_is_told_as_a_lease(bench: Bench, jobs: JobFactory) -> None:
    await jobs.leased()
    await jobs.waiting(delay_tolerance_seconds=40.0)
    await bench.start(1)
    await bench.grant(capacity=7)

    await bench.start(1)

    (told,) = bench.events.of(JobsLeased)
    assert (told.use_case, told.sent, told.in_flight, told.capacity) == ("mail", 1, 2, 7)
    assert [(slack.slack_seconds, slack.tolerance_seconds) for slack in told.slacks] == [(40, 40)]


async def test_what_was_picked_is_kept_when_the_claim_fails(
    bench: Bench, jobs: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> Claimed | None:
        raise StoreUnavailable("gone")

    await jobs.leased()
    await bench.start(1)
    monkeypatch.setattr(bench.store.claims, "claim", fail)
    leased = await jobs.leased()
    bench.receiver.ring(QUEUE)

    kept = await bench.start(2)
    bench.receiver.ring(QUEUE)

    assert [job.id for job in kept] == [leased.job_id]
    with pytest.raises(StoreUnavailable):
        await bench.start(1)


async def test_a_hint_of_a_producer_makes_it_claim_at_once_and_look_for_what_is_leased_later(
    bench: Bench, jobs: JobFactory
) -> None:
    await jobs.leased()
    await bench.start(1)
    await bench.grant()
    await bench.start(1)
    leased, waiting, another = await jobs.leased(), await jobs.waiting(), await jobs.waiting()

    bench.monotonic.at += PICK_EVERY_SECONDS
    bench.receiver.heard_due("mail")
    at_a_hint = await bench.start(1)
    later = await bench.start(1)
    bench.monotonic.at += PICK_EVERY_SECONDS + CLAIM_FIRST_SECONDS
    overdue = await jobs.leased()
    bench.receiver.heard_due("mail")
    after_many_hints = await bench.start(1)

    assert [job.id for job in (*at_a_hint, *later)] == [waiting.id, leased.job_id]
    assert [job.id for job in after_many_hints] == [overdue.job_id], another.id
