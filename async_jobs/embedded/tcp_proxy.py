"""A TCP proxy that misbehaves on request, so that code can be tested against a bad network.

    with TcpProxy.in_thread(5432) as proxy:
        ...connect to proxy.port instead of 5432...
        proxy.black_hole()
        proxy.heal()

    delay        every chunk, both ways, is held for so long
    black_hole   nothing arrives any more, in one direction or both, and nobody is told; what
                 was on its way arrives after `heal`, as TCP would repeat it
    refuse       nobody listens on the port: new connections are refused, old ones go on
    reset        connections end at once, as if the other side had crashed
    cut_replies  the server gets a request and does its work; the reply is lost with the connection

`sent` narrows a fault to connections whose client has sent these bytes once (`b"LISTEN"`).
It knows no protocol. It listens on 127.0.0.1, passes on to 127.0.0.1 and nowhere else, and holds
no more than a chunk per direction: what it does not pass on stays with the sender. All
methods may be called from any thread and take effect before they return.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Literal, Self, TypeVar

CHUNK_BYTES = 65_536
MOST_CONNECTIONS = 1_000
START_TIMEOUT_SECONDS = 10.0
QUIET_SECONDS = 0.05
"""A reply is over when the server has sent nothing for so long."""
HOST = "127.0.0.1"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Direction = Literal["to_server", "to_client", "both"]
Result = TypeVar("Result")


class _Connection:
    """One client, its connection to the server, and what the client has sent so far."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.seen: set[bytes] = set()
        self.cut = False

    def reset(self) -> None:
        """End both sides with RST."""
        for writer in (self.client, self.server):
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class TcpProxy:
    """Listens on a free port of 127.0.0.1 and passes on to *to_port* of 127.0.0.1."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self.to_port = to_port
        self.cuts = 0
        self.accepted = 0
        self._delay_seconds = 0.0
        self._holes: dict[str, bytes] = {}
        self._cut_on: Sequence[bytes] = ()
        self._cuts_left = 0
        self._reset_on: bytes | None = None
        self._changed = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._watched: set[bytes] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id: int | None = None

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return self._on_loop(lambda: len(self._connections))

    def watch(self, sent: bytes) -> None:
        """Remember from now on which connections have sent these bytes."""
        self._on_loop(lambda: self._watched.add(sent))

    def delay(self, seconds: float) -> None:
        """Hold every chunk for *seconds*."""
        self._on_loop(lambda: setattr(self, "_delay_seconds", seconds))

    def black_hole(self, direction: Direction = "both", *, sent: bytes = b"") -> None:
        """Let nothing through any more in *direction*."""
        ways = ("to_server", "to_client") if direction == "both" else (direction,)
        self._on_loop(lambda: self._open_hole(ways, sent))

    def refuse(self) -> None:
        """Stop listening; the port stays ours."""
        self._on_loop(self._close_server)

    def reset(self, *, sent: bytes = b"", again: bool = False) -> None:
        """Reset the open connections; with *again* every later one too, when it sends *sent*."""
        self._on_loop(lambda: self._reset(sent, again))

    def cut_replies(self, *requests: bytes, count: int = 1) -> None:
        """Lose the reply to the next *count* chunks that hold one of *requests*; see `cuts`."""
        self._on_loop(lambda: self._arm_cuts(requests, count))

    def heal(self) -> None:
        """Pass everything on again."""
        self._on_loop(self._heal)
        listening: Future[None] = Future()
        if self._loop is not None and threading.get_ident() != self._thread_id:
            self._loop.call_soon_threadsafe(
                lambda: asyncio.ensure_future(self._listen_again(listening))
            )
            listening.result(START_TIMEOUT_SECONDS)

    @classmethod
    @contextmanager
    def in_thread(cls, to_port: int) -> Generator[Self, None, None]:
        """Run a proxy in a thread with a loop of its own; open connections end with it."""
        proxy = cls(to_port)
        ready: Future[Callable[[], object]] = Future()
        thread = threading.Thread(
            target=lambda: asyncio.run(proxy._run(ready)), name="tcp-proxy", daemon=True
        )
        thread.start()
        stop = ready.result(START_TIMEOUT_SECONDS)
        try:
            yield proxy
        finally:
            stop()
            thread.join()

    async def _run(self, ready: Future[Callable[[], object]]) -> None:
        stopping = asyncio.Event()
        self._loop, self._thread_id = asyncio.get_running_loop(), threading.get_ident()
        try:
            self._reserved = _bound(0)
            self.port = self._reserved.getsockname()[1]
            await self._listen()
        except OSError as error:
            ready.set_exception(error)
            return
        ready.set_result(partial(self._loop.call_soon_threadsafe, stopping.set))
        await stopping.wait()
        await self._end()

    async def _end(self) -> None:
        self._close_server()
        for connection in list(self._connections):
            connection.reset()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        # A transport that was aborted closes its socket in the next turn of the loop.
        await asyncio.sleep(0.01)
        if self._reserved is not None:
            self._reserved.close()
        self._loop = None

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=_bound(self.port))

    async def _listen_again(self, done: Future[None]) -> None:
        if self._server is None:
            await self._listen()
        done.set_result(None)

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _open_hole(self, ways: Sequence[str], sent: bytes) -> None:
        self._holes.update(dict.fromkeys(ways, sent))
        self._watched.add(sent)

    def _reset(self, sent: bytes, again: bool) -> None:
        self._watched.add(sent)
        self._reset_on = sent if again else None
        for connection in list(self._connections):
            if not sent or sent in connection.seen:
                connection.reset()

    def _arm_cuts(self, requests: Sequence[bytes], count: int) -> None:
        self._cut_on, self._cuts_left = requests, count

    def _heal(self) -> None:
        self._delay_seconds, self._cuts_left, self._reset_on = 0.0, 0, None
        self._holes.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if len(self._connections) >= MOST_CONNECTIONS:
            client.transport.abort()
            return
        try:
            from_server, server = await asyncio.open_connection(HOST, self.to_port)
        except OSError:
            client.transport.abort()
            return
        connection = _Connection(client, server)
        self._connections.add(connection)
        ours = [
            asyncio.ensure_future(self._forth(reader, connection)),
            asyncio.ensure_future(self._back(from_server, connection)),
        ]
        self._pumps.update(ours)
        try:
            await asyncio.wait(ours)
        finally:
            self._pumps.difference_update(ours)
            self._connections.discard(connection)
            for writer in (client, server):
                writer.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        try:
            while content := await reader.read(CHUNK_BYTES):
                connection.seen.update(each for each in self._watched if each in content)
                if self._reset_on is not None and self._reset_on in content:
                    connection.reset()
                    return
                if self._cuts_left and any(each in content for each in self._cut_on):
                    self._cuts_left -= 1
                    connection.cut = True
                await self._pass(content, connection, connection.server, "to_server")
            connection.server.write_eof()
        except OSError:
            connection.reset()

    async def _back(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        try:
            while content := await reader.read(CHUNK_BYTES):
                if connection.cut:
                    await _until_quiet(reader)
                    self.cuts += 1
                    connection.reset()
                    return
                await self._pass(content, connection, connection.client, "to_client")
            connection.client.write_eof()
        except OSError:
            connection.reset()

    async def _pass(
        self, content: bytes, connection: _Connection, to: asyncio.StreamWriter, way: str
    ) -> None:
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        while way in self._holes and _concerns(self._holes[way], connection):
            await self._changed.wait()
        to.write(content)
        await to.drain()

    def _on_loop(self, work: Callable[[], Result]) -> Result:
        """Run *work* in the proxy's thread and wait for its result."""
        if self._loop is None or threading.get_ident() == self._thread_id:
            return work()
        done: Future[Result] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(work()))
        return done.result(START_TIMEOUT_SECONDS)


def _concerns(sent: bytes, connection: _Connection) -> bool:
    return not sent or sent in connection.seen


async def _until_quiet(reader: asyncio.StreamReader) -> None:
    """Read what still comes of a reply, and drop it."""
    with suppress(TimeoutError):
        while await asyncio.wait_for(reader.read(CHUNK_BYTES), QUIET_SECONDS):
            pass


def _bound(port: int) -> socket.socket:
    """A socket that shares its port with the others of this process and does not listen yet."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((HOST, port))
    return made
