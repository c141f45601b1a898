"""The jobs that the table gives are those that the rule names, whichever way they are read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest
from moving_parts import Events
from store.factories import MIDNIGHT, RETRIED_AT_ONCE, SUCCEEDED, JobFactory, SettableClock, new_job

from async_jobs.core.fairness import Credits, Flow, Head, Listed, Terms, choose
from async_jobs.models import AcceptedJob, Leased
from async_jobs.scheduler import selection
from async_jobs.scheduler.pressure import QUIET_SECONDS
from async_jobs.scheduler.selection import Limits, Selection
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.events import PressureBegan, PressureEnded

from .conftest import FakeSender, MakeDispatcher

CAPACITY = 12


async def leased(
    store: JobStore,
    slots: int,
    *,
    limits: Limits | None = None,
    held: Mapping[str, int] | None = None,
    by: Selection | None = None,
) -> list[Leased]:
    """One turn of a selection."""
    chooser = by or Selection(lambda tenant: 1.0, lease_seconds=30.0)
    async with store.take_turn("mail") as turn:
        assert turn is not None
        return await chooser.lease(turn, limits or Limits(capacity=CAPACITY), held or {}, slots)


async def wait(store: JobStore, jobs: Sequence[AcceptedJob]) -> None:
    await store.enqueue(jobs)


def tolerant(seconds: float, count: int = 1, **fields: object) -> list[AcceptedJob]:
    return [new_job(delay_tolerance_seconds=seconds, **fields) for _ in range(count)]


@pytest.mark.parametrize("seed", range(60))
async def test_the_table_and_the_rule_name_the_same_jobs(
    store: JobStore, jobs: JobFactory, clock: SettableClock, seed: int
) -> None:
    draw = random.Random(seed)
    made: list[tuple[AcceptedJob, bool]] = []
    for _ in range(draw.randrange(5, 60)):
        job = new_job(
            tenant_id=draw.choice("abcd"),
            type=draw.choice(["call", "send"]),
            priority=draw.choice([-1, 0, 5]),
            delay_tolerance_seconds=draw.uniform(1.0, 100.0),
        )
        made.append((job, draw.random() < 0.3))
    await store.enqueue([job for job, _ in made])
    await _retry(store, [job.id for job, retry in made if retry])
    clock.advance(draw.choice([0.5, 20.0, 50.0]))
    held = {tenant: draw.randrange(5) for tenant in "abe"}
    room = {"c": 2}
    limits = Limits(
        capacity=CAPACITY,
        most_held={"c": 2}.get,
        bounds_tenants=True,
        shut={("d", "call")},
    )
    slots = draw.randrange(1, 20)

    found = await leased(store, slots, limits=limits, held=held)

    by_rule = _by_the_rule(made, clock, held, room, slots)
    # A pass may end before its slots are used, where it has not read far enough; never elsewhere.
    assert len(found) >= min(selection.LEAST_PER_LANE, len(by_rule))
    assert {job.job_id for job in found} == {*by_rule[: len(found)]}


async def _retry(store: JobStore, ids: Sequence[UUID]) -> None:
    """Let these jobs have failed once."""
    async with store.take_turn("mail") as turn:
        assert turn is not None
        tickets = await turn.lease_chosen(ids, lease_seconds=30)
    started = await store.start_leased(
        ["mail-queue"], slots=len(ids) + 1, worker="ada", lease_seconds=30
    )
    assert len(started) == len(tickets) == len(ids)
    await store.finish([(job, RETRIED_AT_ONCE) for job in started])


def _by_the_rule(
    made: Sequence[tuple[AcceptedJob, bool]],
    clock: SettableClock,
    held: Mapping[str, int],
    room: Mapping[str, int],
    slots: int,
) -> list[UUID]:
    lanes: dict[tuple[Flow, bool], list[tuple[Head, UUID]]] = {}
    for job, retry in made:
        flow = Flow(job.tenant_id, job.type, retry, job.priority)
        passed = (clock.at - MIDNIGHT).total_seconds()
        slack = job.delay_tolerance_seconds - passed
        if flow[:2] != ("d", "call"):
            lanes.setdefault((flow, slack < 0), []).append((Head(slack, job.id), job.id))
    tenants = {job.tenant_id for job, _ in made} | {*held}
    terms = Terms(
        capacity=CAPACITY,
        now=0.0,
        pressure=any(late for _, late in lanes),
        total_weight=float(len(tenants)),
        weight_of=lambda tenant: 1.0,
        mean_seconds=lambda flow: 1.0,
    )
    listed = [Listed(flow, sorted(inside), late=late) for (flow, late), inside in lanes.items()]
    return choose(listed, terms, slots=slots, held=held, room=room, credits=Credits())


async def test_one_who_floods_does_not_make_the_others_late(
    store: JobStore, clock: SettableClock
) -> None:
    await wait(store, tolerant(1.0, 100, tenant_id="flood"))
    clock.advance(2.0)
    await wait(
        store, [*tolerant(0.5, 50, tenant_id="flood"), *tolerant(60.0, 3, tenant_id="quiet")]
    )

    found = await leased(store, 4, held={"flood": 8})

    assert [job.tenant_id for job in found].count("quiet") == 3


@pytest.mark.parametrize(("passed", "shares"), [(9.0, True), (11.0, False)])
async def test_pressure_outlasts_late_jobs_that_are_ended_instead_of_run(
    store: JobStore, clock: SettableClock, passed: float, shares: bool
) -> None:
    at = 0.0
    chooser = Selection(
        lambda tenant: 1.0, lease_seconds=30.0, pressure_lasts_seconds=10.0, monotonic=lambda: at
    )
    await wait(store, tolerant(1.0))
    clock.advance(2.0)
    await leased(store, 1, by=chooser)
    at = passed
    await wait(
        store, [*tolerant(5.0, 50, tenant_id="flood"), *tolerant(60.0, 3, tenant_id="quiet")]
    )

    found = await leased(store, 4, held={"flood": 8}, by=chooser)

    assert ("quiet" in {job.tenant_id for job in found}) == shares


async def test_a_shut_flow_gets_one_probe_and_nothing_else(
    store: JobStore, jobs: JobFactory
) -> None:
    await wait(
        store, [*tolerant(5.0, 3, type="broken", priority=1), *tolerant(5.0, 3, type="broken")]
    )
    await wait(store, tolerant(50.0, 2))
    shut = Limits(capacity=CAPACITY, shut={("acme", "broken")})
    probing = Limits(capacity=CAPACITY, shut={("acme", "broken")}, probes={("acme", "broken")})

    without = await leased(store, 10, limits=shut)
    probes = await leased(store, 10, limits=probing)

    assert [job.type for job in without] == ["send", "send"]
    assert [job.type for job in probes] == ["broken"]
    assert (await jobs.row(probes[0])).probe


async def test_what_is_no_probe_any_more_is_not_marked_as_one(
    store: JobStore, jobs: JobFactory
) -> None:
    await wait(store, tolerant(5.0, 1, type="broken"))
    limits = Limits(capacity=CAPACITY, shut={("acme", "broken")}, probes={("acme", "broken")})
    (probe,) = await leased(store, 1, limits=limits)
    started = await jobs.start(probe)
    await store.finish([(started, RETRIED_AT_ONCE)])

    row = await jobs.row(probe)
    assert (started.probe, row.probe, row.is_retry) == (True, False, True)


async def test_with_more_flows_than_fit_into_a_pass_each_gets_its_turn(
    store: JobStore, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_FLOWS", 4)
    await wait(store, [new_job(tenant_id=f"t{n}", delay_tolerance_seconds=1.0) for n in range(11)])
    clock.advance(2.0)
    chooser = Selection(lambda tenant: 1.0, lease_seconds=30.0)
    seen: Counter[str] = Counter()

    for _ in range(8):
        seen.update(job.tenant_id for job in await leased(store, 2, by=chooser))

    assert seen == {f"t{n}": 1 for n in range(11)}


async def test_the_most_urgent_are_seen_even_outside_the_window_of_flows(
    store: JobStore, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_FLOWS", 2)
    await wait(store, tolerant(1.0, tenant_id="late"))
    await wait(store, [new_job(tenant_id=f"t{n}", delay_tolerance_seconds=90.0) for n in range(9)])
    await wait(store, tolerant(5.0, tenant_id="urgent"))
    clock.advance(2.0)

    (first,) = await leased(store, 1)

    assert first.tenant_id == "urgent"


async def test_pressure_is_told_when_it_begins_and_once_when_it_is_over(
    store: JobStore,
    clock: SettableClock,
    make_dispatcher: MakeDispatcher,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = 1_000.0
    dispatcher = make_dispatcher(capacity=1)
    monkeypatch.setattr(dispatcher, "_monotonic", lambda: at)
    await wait(store, tolerant(1.0, 2))
    await dispatcher.dispatch()
    clock.advance(5.0)

    for step in (0.0, 1.0, QUIET_SECONDS + 1):
        at += step
        await dispatcher.dispatch()
        if step == 1.0:
            async with store.take_turn("mail") as turn:
                assert turn is not None
                await turn.lease_due(5, lease_seconds=30)

    assert [event.use_case for event in events.of(PressureBegan)] == ["mail"]
    (over,) = events.of(PressureEnded)
    assert over.lasted_seconds == pytest.approx(1.0)


async def test_how_long_jobs_run_is_measured_where_it_matters(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    chooser = Selection(lambda tenant: 1.0, lease_seconds=30.0)
    job = await jobs.running(tenant_id="slow")
    clock.advance(25.0)
    await store.finish([(job, RETRIED_AT_ONCE)])
    done = await jobs.running(tenant_id="quick")
    clock.advance(3.0)
    await store.finish([(done, SUCCEEDED)])
    await wait(store, tolerant(1.0, 2, tenant_id="late"))
    clock.advance(2.0)

    await leased(store, 1, by=chooser)

    assert chooser.run_times.mean_seconds(Flow("quick", "send")) == pytest.approx(3.0)


async def test_the_sender_gets_them_most_urgent_first(
    store: JobStore, clock: SettableClock, make_dispatcher: MakeDispatcher, sender: FakeSender
) -> None:
    await wait(
        store, [new_job(tenant_id=f"t{n}", delay_tolerance_seconds=5.0 + n) for n in range(9)]
    )
    clock.advance(6.5)

    await make_dispatcher().dispatch()

    deadlines = [job.deadline_at for job in sender.sent]
    assert deadlines == sorted(deadlines)
