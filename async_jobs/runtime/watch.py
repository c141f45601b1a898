"""A thread beside the event loop that tells the truth about it, and ends the process if need be.

    blocked    the event loop does not answer: said after a second and each time that doubles,
               with what it is busy with
    asked      `GET /healthz` and `GET /readyz` on a port of its own, if one is configured
    stopping   the process leaves when its time is over, whatever still hangs: exit code 0
    given up   the process could not work for too long: exit code 3

It has an event loop of its own, because the other one may be what is broken: a handler that
never awaits, a call that never returns. Requests are small and bounded in size, time and number.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from async_jobs.runtime.health import Health, Probe
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import EventLoopBlocked, ProcessGaveUp, ProcessLeft

LOOK_EVERY_SECONDS = 0.5
BLOCKED_AFTER_SECONDS = 1.0
PROBE_SECONDS = 2.0
PROBE_LASTS_SECONDS = 1.0
REQUEST_SECONDS = 2.0
MOST_REQUEST_BYTES = 8_192
MOST_CONNECTIONS = 16
END_SECONDS = 2.0
GAVE_UP = 3

Leave = Callable[[int], object]


class Watch:
    """Watches the event loop that `begin` is called from."""

    def __init__(
        self,
        role: str,
        name: str,
        health: Health,
        *,
        bus: Bus,
        leave: Leave,
        port: socket.socket | None,
    ) -> None:
        self._role = role
        self._name = name
        self.health = health
        self._bus = bus
        self._leave = leave
        self._port = port
        self._leave_at: float | None = None
        self._pinged_at: float | None = None
        self._tell_after = BLOCKED_AFTER_SECONDS
        self._connections = 0
        self._probing: asyncio.Future[None] | None = None
        self._probed_at = -PROBE_LASTS_SECONDS
        self._thread = threading.Thread(target=self._run, name="async-jobs-watch", daemon=True)
        self._began = threading.Event()

    def begin(self) -> None:
        """Look on from now on."""
        self._watched = asyncio.get_running_loop()
        self._thread.start()
        self._began.wait(END_SECONDS)

    def end(self) -> None:
        """Look on no more, and close the port."""
        with suppress(RuntimeError):  # it has ended already
            self._own_loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(END_SECONDS)

    def leave_within(self, seconds: float) -> None:
        """The process was asked to stop, and must be gone by then; from any thread."""
        self.health.stopping = True
        leave_at = time.monotonic() + seconds
        self._leave_at = min(self._leave_at or leave_at, leave_at)

    def _run(self) -> None:
        asyncio.run(self._look_on())

    async def _look_on(self) -> None:
        self._own_loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._began.set()
        server = None
        if self._port is not None:
            server = await asyncio.start_server(
                self._serve, sock=self._port, limit=MOST_REQUEST_BYTES
            )
        self._look_again()
        await self._ended.wait()
        if self._probing is not None:
            self._probing.cancel()
        if server is not None:
            server.close()

    def _look_again(self) -> None:
        self._own_loop.call_later(LOOK_EVERY_SECONDS, self._look_again)
        self._look()

    def _look(self) -> None:
        self._ping()
        if self._leave_at is not None and time.monotonic() >= self._leave_at:
            self._bus.emit(ProcessLeft(role=self._role, name=self._name))
            self._leave(0)
        if reason := self.health.given_up():
            self._bus.emit(ProcessGaveUp(role=self._role, name=self._name, reason=reason))
            self._leave(GAVE_UP)

    def _ping(self) -> None:
        now = time.monotonic()
        if self._pinged_at is None:
            self.health.blocked_seconds = 0.0
            self._tell_after = BLOCKED_AFTER_SECONDS
            self._pinged_at = now
            with suppress(RuntimeError):  # it is closed
                self._watched.call_soon_threadsafe(self._answer_ping)
            return
        self.health.blocked_seconds = blocked = now - self._pinged_at
        if blocked >= self._tell_after:
            self._tell_after = 2 * blocked
            busy_with = asyncio.current_task(self._watched)
            by = "something of no name" if busy_with is None else busy_with.get_name()
            self._bus.emit(EventLoopBlocked(blocked_seconds=blocked, by=by))

    def _answer_ping(self) -> None:
        if self._pinged_at is not None:
            lag = time.monotonic() - self._pinged_at
            self.health.lagged(lag)
            if (measure := self._bus.measure) is not None:
                measure("async_jobs.loop.lag", lag, role=self._role)
        self._pinged_at = None

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MOST_CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS + PROBE_SECONDS):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(request))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", {}, method)
        if path == b"/healthz":
            problems = self.health.faults()
        elif path == b"/readyz":
            problems = await self._unready()
        else:
            return _response("404 Not Found", {}, method)
        status = "503 Service Unavailable" if problems else "200 OK"
        told = {"status": "failing" if problems else "ok", "problems": problems}
        return _response(status, told, method)

    async def _unready(self) -> list[str]:
        hindrances = self.health.hindrances()
        probe = self.health.probe
        if hindrances or probe is None or await self._database_answers(probe):
            return hindrances
        return ["the database does not answer"]

    async def _database_answers(self, probe: Probe) -> bool:
        """Whether it answered a moment ago, or does now; asked once at a time."""
        if time.monotonic() - self._probed_at < PROBE_LASTS_SECONDS:
            return True
        if self._probing is None or self._probing.done():
            self._probing = asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(probe(), self._watched)
            )
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await asyncio.shield(self._probing)
        except Exception:
            return False
        self._probed_at = time.monotonic()
        return True


def _response(status: str, told: Mapping[str, object], method: bytes) -> bytes:
    content = json.dumps(told).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else content)


@contextmanager
def watching(watch: Watch) -> Iterator[Watch]:
    """The watch looks on while inside."""
    watch.begin()
    try:
        yield watch
    finally:
        watch.end()
