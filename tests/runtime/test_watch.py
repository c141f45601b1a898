"""The watch: what it answers, what it notices, when it ends the process."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from moving_parts import Events, until

from async_jobs.runtime import health as health_module
from async_jobs.runtime import watch as watch_module
from async_jobs.runtime.health import Health
from async_jobs.runtime.loop import Loop
from async_jobs.runtime.watch import GAVE_UP, Watch, watching
from async_jobs.telemetry.events import EventLoopBlocked, ProcessGaveUp, ProcessLeft

PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(watch_module, "BLOCKED_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(watch_module, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(watch_module, "PROBE_LASTS_SECONDS", 0.0)
    monkeypatch.setattr(health_module, "LEAST_PATIENCE_SECONDS", 0.01)


@dataclass
class Stand:
    """A watch over this test's event loop, which leaves nothing but a note."""

    give_up_seconds: float = 0.0
    interval_seconds: float = 0.05
    events: Events = field(default_factory=Events)
    left: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = socket.create_server(("127.0.0.1", 0))
        self.health = Health(
            interval_seconds=self.interval_seconds, give_up_seconds=self.give_up_seconds
        )
        self.watch = Watch(
            "worker",
            "ada",
            self.health,
            bus=self.events.bus,
            leave=self.left.append,
            port=self.port,
        )

    async def ask(self, request: str) -> tuple[int, list[str]]:
        """Status and problems that the port answers."""
        content = f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        return _read(await asyncio.to_thread(exchanged, self.port, content))


def exchanged(port: socket.socket, content: bytes) -> bytes:
    with socket.create_connection(port.getsockname(), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(content)
        answer = b""
        while more := connection.recv(65_536):
            answer += more
        return answer


def _read(answer: bytes) -> tuple[int, list[str]]:
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content).get("problems", [])


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand()
    yield made
    made.port.close()


@asynccontextmanager
async def running(loop: Loop) -> AsyncIterator[None]:
    task = asyncio.ensure_future(loop.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def works() -> None:
    pass


async def test_a_process_is_alive_from_its_start_and_ready_when_its_database_answers(
    stand: Stand,
) -> None:
    with watching(stand.watch):
        assert await stand.ask("GET /healthz") == (200, [])
        assert await stand.ask("GET /readyz") == (503, ["the process is starting"])

        stand.health.probe = works

        assert await stand.ask("GET /readyz?now=1") == (200, [])


async def test_a_database_that_fails_or_is_silent_makes_unready_and_not_unwell(
    stand: Stand,
) -> None:
    async def fails() -> None:
        raise ConnectionError("postgresql://ada:sesame@db")

    async def silent() -> None:
        await asyncio.Event().wait()

    with watching(stand.watch):
        for probe in (fails, silent):
            stand.health.probe = probe

            assert await stand.ask("GET /readyz") == (503, ["the database does not answer"])
            assert await stand.ask("GET /healthz") == (200, [])


async def test_a_silent_database_is_asked_once_at_a_time(stand: Stand) -> None:
    asked = []

    async def silent() -> None:
        asked.append(1)
        await asyncio.Event().wait()

    stand.health.probe = silent
    with watching(stand.watch):
        for _ in range(3):
            await stand.ask("GET /readyz")

    assert len(asked) == 1


async def test_a_process_that_is_stopping_is_not_ready(stand: Stand) -> None:
    stand.health.probe = works
    with watching(stand.watch):
        stand.watch.leave_within(3_600)

        assert await stand.ask("GET /readyz") == (503, ["the process is stopping"])
        assert await stand.ask("GET /healthz") == (200, [])


async def test_a_loop_whose_pass_does_not_end_is_no_longer_alive(stand: Stand) -> None:
    async def hangs() -> float:
        await asyncio.Event().wait()
        return 0.0

    loop = Loop("dispatch of mail", hangs, bus=stand.events.bus)
    stand.health.watch([loop], pass_seconds=0.0)
    with watching(stand.watch):
        async with running(loop):
            await until(stand.health.faults)
            status, [problem] = await stand.ask("GET /healthz")

    assert status == 503
    assert problem.startswith("dispatch of mail made no progress for 0.")


async def test_a_loop_that_fails_turns_and_is_alive(stand: Stand) -> None:
    async def fails() -> float:
        raise ConnectionError

    loop = Loop("dispatch of mail", fails, bus=stand.events.bus)
    stand.health.watch([loop], pass_seconds=0.0)
    async with running(loop):
        await until(lambda: loop.is_failing)

        assert stand.health.faults() == []


async def test_a_loop_that_sleeps_long_is_alive(stand: Stand) -> None:
    async def rests() -> float:
        return 3_600.0

    loop = Loop("dispatch of mail", rests, bus=stand.events.bus)
    stand.health.watch([loop], pass_seconds=-1.0)
    async with running(loop):
        await asyncio.sleep(0.01)

        assert loop.stuck_seconds(time.monotonic()) == 0.0


async def test_a_dead_thread_is_told(stand: Stand) -> None:
    stand.health.check(lambda: "the heartbeat thread is dead")
    with watching(stand.watch):
        assert await stand.ask("GET /healthz") == (503, ["the heartbeat thread is dead"])


async def test_a_blocked_event_loop_is_told_while_it_is_blocked_and_by_whom(stand: Stand) -> None:
    answers = []

    async def block() -> None:
        until_at = time.monotonic() + PATIENCE_SECONDS
        while stand.health.blocked_seconds < 0.3 and time.monotonic() < until_at:
            time.sleep(0.01)  # noqa: ASYNC251 # that is the point
        answers.append(exchanged(stand.port, b"GET /healthz HTTP/1.1\r\n\r\n"))

    with watching(stand.watch):
        await asyncio.create_task(block(), name="a handler of type 'count'")
        await until(lambda: stand.health.blocked_seconds == 0.0)
        assert await stand.ask("GET /healthz") == (200, [])

    told = stand.events.of(EventLoopBlocked)
    assert {event.by for event in told} == {"a handler of type 'count'"}
    blocked = [event.blocked_seconds for event in told]
    assert all(later >= 2 * earlier for earlier, later in pairwise(blocked))
    status, [problem] = _read(answers[0])
    assert status == 503
    assert problem.startswith("the event loop has been blocked for 0.")


async def test_a_process_that_cannot_work_for_too_long_exits_with_3() -> None:
    stand = Stand(give_up_seconds=0.05)
    stand.health.check(lambda: "the heartbeat thread is dead")
    with stand.port, watching(stand.watch):
        await until(lambda: stand.left)

    assert stand.left[0] == GAVE_UP == 3
    assert "the heartbeat thread is dead" in stand.events.of(ProcessGaveUp)[0].reason


@pytest.mark.parametrize(("more", "gives_up"), [([], True), ([lambda: 3_600.0], False)])
async def test_it_gives_up_when_every_loop_fails_and_not_when_some_do(
    more: list[Callable[[], float]], gives_up: bool
) -> None:
    stand = Stand(give_up_seconds=0.05)

    async def fails() -> float:
        raise ConnectionError

    async def works() -> float:
        return 3_600.0

    loops = [Loop("a", fails, bus=stand.events.bus)]
    loops += [Loop("b", works, bus=stand.events.bus) for _ in more]
    stand.health.watch(loops)
    with stand.port, watching(stand.watch):
        tasks = [asyncio.ensure_future(loop.run()) for loop in loops]
        await until(lambda: loops[0].is_failing)
        await until(lambda: stand.left or not gives_up)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    assert bool(stand.left) is gives_up


async def test_a_stop_that_takes_too_long_ends_with_exit_code_0(stand: Stand) -> None:
    with watching(stand.watch):
        stand.watch.leave_within(3_600)
        stand.watch.leave_within(0.0)
        await until(lambda: stand.left)

    assert stand.left[0] == 0
    assert stand.events.of(ProcessLeft)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("GET /", 404), ("GET /healthz/../etc", 404), ("POST /healthz", 405), ("nonsense", 405)],
)
async def test_nothing_else_is_answered(stand: Stand, request_line: str, status: int) -> None:
    with watching(stand.watch):
        assert await stand.ask(request_line) == (status, [])


@pytest.mark.parametrize(
    "content", [b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000, b"GET /healthz"]
)
async def test_requests_too_large_or_too_slow_are_hung_up(
    stand: Stand, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "LEAST_PATIENCE_SECONDS", PATIENCE_SECONDS)
    stand.health = stand.watch.health = Health(interval_seconds=0.0, give_up_seconds=0.0)
    monkeypatch.setattr(watch_module, "REQUEST_SECONDS", 0.0)
    monkeypatch.setattr(watch_module, "PROBE_SECONDS", 0.1)

    def answer() -> bytes:
        try:
            return exchanged(stand.port, content)
        except ConnectionError:
            return b""

    with watching(stand.watch):
        assert await asyncio.to_thread(answer) == b""
        monkeypatch.setattr(watch_module, "REQUEST_SECONDS", 5.0)
        assert await stand.ask("GET /healthz") == (200, [])
