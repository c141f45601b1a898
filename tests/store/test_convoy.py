"""Group commit: who goes with whom, and that everybody gets what is theirs. No database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_parts import until

from async_jobs.models import Enqueued
from async_jobs.store import convoy as convoys
from async_jobs.store.convoy import Convoy, Single, convoy_of

from .factories import new_job

Answer = Enqueued | Exception | None
whose: ContextVar[str] = ContextVar("whose", default="nobody's")


def single() -> Single:
    return Single(new_job(), hints=(), trace_context=None)


@dataclass
class Statement:
    """A statement under way; ends when the test says so."""

    singles: Sequence[Single]
    is_shared: bool
    ended: asyncio.Future[Sequence[Answer]]
    context: str

    def end(self, answers: Sequence[Answer] | None = None) -> None:
        good = [Enqueued(one.job.id) for one in self.singles]
        self.ended.set_result(good if answers is None else answers)


@dataclass
class Road:
    """Keeps what is sent and lets the test answer."""

    sent: list[Statement] = field(default_factory=list)

    async def alone(self, one: Single) -> Enqueued:
        (answer,) = await self._send([one], is_shared=False)
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    async def together(self, singles: Sequence[Single]) -> Sequence[Answer]:
        return await self._send(singles, is_shared=True)

    async def _send(self, singles: Sequence[Single], *, is_shared: bool) -> Sequence[Answer]:
        ended = asyncio.get_running_loop().create_future()
        self.sent.append(Statement(singles, is_shared, ended, whose.get()))
        return await ended

    @property
    def open(self) -> list[Statement]:
        return [one for one in self.sent if not one.ended.done()]

    def sizes(self) -> list[int]:
        return [len(one.singles) for one in self.sent]


@pytest.fixture
def road() -> Road:
    return Road()


@pytest.fixture(autouse=True)
def endless_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoys, "PATIENCE_SECONDS", 3_600.0)


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


class Callers:
    """Calls of one convoy."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.convoy = Convoy()
        self.singles: list[Single] = []
        self.calls: list[asyncio.Task[Enqueued]] = []

    async def come(self, count: int = 1) -> None:
        for _ in range(count):
            self.singles.append(single())
            call = self.convoy.store(self.singles[-1], self.road)
            self.calls.append(asyncio.ensure_future(call))
        await settle()

    async def results(self) -> list[Enqueued | BaseException]:
        return list(await asyncio.gather(*self.calls, return_exceptions=True))

    def own(self, *numbers: int) -> list[Enqueued]:
        return [Enqueued(self.singles[number].job.id) for number in numbers]


async def test_a_call_goes_at_once_and_those_that_come_meanwhile_go_together(road: Road) -> None:
    callers = Callers(road)
    await callers.come(4)
    assert road.sizes() == [1]

    road.open[0].end()
    await settle()
    assert road.sizes() == [1, 3]
    assert list(road.open[0].singles) == callers.singles[1:]

    road.open[0].end()
    assert await callers.results() == callers.own(0, 1, 2, 3)


async def test_callers_that_come_again_at_once_stay_together(road: Road) -> None:
    convoy = Convoy()

    async def call_often() -> None:
        for _ in range(5):
            await convoy.store(single(), road)

    calls = asyncio.gather(*[call_often() for _ in range(8)])
    while not calls.done():
        await settle()
        for statement in road.open:
            statement.end()

    assert road.sizes() == [1, 8, 8, 8, 8, 7]


async def test_a_caller_that_is_left_over_goes_by_itself_again(road: Road) -> None:
    convoy = Convoy()

    async def call(times: int) -> None:
        for _ in range(times):
            await convoy.store(single(), road)

    calls = asyncio.gather(call(5), call(1))
    while not calls.done():
        await settle()
        for statement in road.open:
            statement.end()

    assert road.sizes() == [1, 2, 1, 1, 1]
    assert [one.is_shared for one in road.sent] == [False, True, True, False, False]


async def test_a_statement_that_hangs_holds_others_up_for_a_moment_only(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convoys, "PATIENCE_SECONDS", 0.001)
    callers = Callers(road)
    await callers.come(3)
    await until(lambda: road.sizes() == [1, 2])
    hanging, second = road.open
    second.end()
    await settle()

    # Whoever comes now waits for nobody.
    await callers.come()
    assert road.sizes() == [1, 2, 1]
    road.open[-1].end()
    hanging.end()
    assert await callers.results() == callers.own(0, 1, 2, 3)


async def test_so_many_go_together_and_no_more(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoys, "MOST_TOGETHER", 3)
    callers = Callers(road)
    await callers.come(9)

    assert road.sizes() == [1, 3, 3]
    for statement in road.open:
        statement.end()
    await settle()
    road.open[0].end()
    assert await callers.results() == callers.own(*range(9))


async def test_what_has_no_answer_goes_alone_and_the_others_do_not_wait_for_it(road: Road) -> None:
    callers = Callers(road)
    await callers.come(4)
    road.open[0].end()
    await settle()
    mine, refusal = callers.own(1)[0], RuntimeError("no")
    road.open[0].end([mine, None, refusal])
    await settle()

    assert callers.calls[1].result() == mine
    assert callers.calls[3].exception() is refusal
    alone = road.open[0]
    assert (alone.is_shared, list(alone.singles)) == (False, callers.singles[2:3])
    alone.end([RuntimeError("mine")])
    assert str((await callers.results())[2]) == "mine"


async def test_a_failure_of_the_first_is_its_own(road: Road) -> None:
    callers = Callers(road)
    await callers.come(3)
    road.open[0].end([RuntimeError("mine")])
    await settle()
    road.open[0].end()
    first, *others = await callers.results()

    assert str(first) == "mine"
    assert others == callers.own(1, 2)


async def test_who_is_cancelled_while_it_waits_is_not_sent(road: Road) -> None:
    callers = Callers(road)
    await callers.come(3)
    callers.calls[1].cancel()
    await settle()
    road.open[0].end()
    await settle()

    assert list(road.open[0].singles) == callers.singles[2:]
    road.open[0].end()
    await callers.results()


async def test_who_is_cancelled_under_way_leaves_the_others_alone(road: Road) -> None:
    callers = Callers(road)
    await callers.come(3)
    callers.calls[0].cancel()
    await settle()
    shared = road.open[-1]
    callers.calls[1].cancel()
    await settle()
    shared.end()
    first, second, third = await callers.results()

    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, asyncio.CancelledError)
    assert third == callers.own(2)[0]


async def test_when_all_who_wait_are_cancelled_the_next_caller_goes_at_once(road: Road) -> None:
    callers = Callers(road)
    await callers.come(2)
    callers.calls[1].cancel()
    road.open[0].end()
    await settle()
    await callers.come()
    road.open[0].end()
    await callers.results()

    assert road.sizes() == [1, 1]


async def test_a_shared_statement_runs_in_nobodys_context(road: Road) -> None:
    callers = Callers(road)
    whose.set("the caller's")
    await callers.come(2)
    road.open[0].end()
    await settle()
    road.open[0].end()
    await callers.results()

    assert [one.context for one in road.sent] == ["the caller's", "nobody's"]


class Pool:
    """Stands for a pool; stores on one pool share."""


def test_every_event_loop_has_a_convoy_of_its_own() -> None:
    pool = Pool()

    async def mine() -> tuple[Convoy, Convoy, Convoy]:
        return convoy_of(pool, "plain"), convoy_of(pool, "plain"), convoy_of(pool, "keyed")

    first, again, other_lane = asyncio.run(mine())
    assert first is again is not other_lane
    assert asyncio.run(mine())[0] is not first


def test_an_event_loop_that_ends_leaves_nobody_waiting(road: Road) -> None:
    async def leave() -> Callers:
        callers = Callers(road)
        await callers.come(3)
        road.open[0].end()
        await settle()
        return callers

    callers = asyncio.run(leave())

    assert [call.cancelled() for call in callers.calls] == [False, True, True]


STEPS = st.one_of(
    st.tuples(st.just("come"), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("end"), st.lists(st.sampled_from("gggnr"), min_size=8, max_size=8)),
    st.tuples(st.just("hang"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_everybody_gets_what_is_theirs(
    steps: list[tuple[str, int | list[str]]],
) -> None:
    asyncio.run(walk(steps))


async def walk(steps: list[tuple[str, int | list[str]]]) -> None:
    """Calls, cancellations, answers of every kind and lost patience, in any order."""
    road = Road()
    callers = Callers(road)
    fate: dict[object, str] = {}
    for what, how in steps:
        if what == "come" and isinstance(how, int):
            await callers.come(how)
        elif what == "cancel" and isinstance(how, int) and how < len(callers.calls):
            callers.calls[how].cancel()
        elif what == "end" and isinstance(how, list) and road.open:
            end(road.open[0], how, fate)
        elif what == "hang":
            callers.convoy._leave()
        await settle()
        check(road, callers)
    while road.open:
        end(road.open[0], ["g"], fate)
        await settle()
    for number, result in enumerate(await callers.results()):
        mine = callers.singles[number].job.id
        if isinstance(result, Enqueued):
            assert (result.job_id, fate[mine]) == (mine, "g")
        elif not isinstance(result, asyncio.CancelledError):
            assert (str(result), fate[mine]) == (str(mine), "r")


def end(statement: Statement, kinds: list[str], fate: dict[object, str]) -> None:
    """g: stored; r: refused, with the job's own id as the text; n: to go alone, if it is shared."""
    answers: list[Answer] = []
    for place, one in enumerate(statement.singles):
        kind = kinds[place % len(kinds)]
        kind = "g" if kind == "n" and not statement.is_shared else kind
        fate[one.job.id] = kind
        good, bad = Enqueued(one.job.id), RuntimeError(str(one.job.id))
        answers.append({"g": good, "r": bad, "n": None}[kind])
    with suppress(asyncio.InvalidStateError):
        statement.end(answers)


def check(road: Road, callers: Callers) -> None:
    order = {one: number for number, one in enumerate(callers.singles)}
    shared = [one for statement in road.sent if statement.is_shared for one in statement.singles]
    under_way = [one for statement in road.open for one in statement.singles]

    assert len(set(shared)) == len(shared), "a job went with two convoys"
    assert len(set(under_way)) == len(under_way), "a job is under way twice"
    for statement in road.sent:
        assert [order[one] for one in statement.singles] == sorted(
            order[one] for one in statement.singles
        )
    waiting = [call for call in callers.calls if not call.done()]
    assert not waiting or road.open, "somebody waits for nothing"
