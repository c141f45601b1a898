"""The SQS server as an object: start it, point a client at it, look inside.

    async with SqsServer() as server:
        url = server.create_queue("mail")
        client = boto3.client("sqs", endpoint_url=server.endpoint_url, ...)

Everything is in memory: a server that is closed takes its queues and messages
with it, and a new one is empty. It listens on 127.0.0.1 unless told otherwise,
looks at no credentials, and must not be reachable by others.

A blocking client (boto3) in the same thread would wait for the loop it blocks:
run it in another thread, or the server (`SqsServer.in_thread()`). All methods may
be called from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from async_jobs.embedded.sqs.control import PATHS, Control
from async_jobs.embedded.sqs.dispatch import Dispatcher
from async_jobs.embedded.sqs.faults import Faults
from async_jobs.embedded.sqs.http import Connection, Reply, Request
from async_jobs.embedded.sqs.queue import MOST_IN_FLIGHT, Counts
from async_jobs.embedded.sqs.region import OWNER, Region

START_TIMEOUT_SECONDS = 10.0

Result = TypeVar("Result")


class SqsServer:
    """A local SQS. *port* 0 takes a free one; *faults* opens the control endpoints."""

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        faults: bool = False,
        seed: int = 0,
        region: str = "us-east-1",
        most_in_flight: int = MOST_IN_FLIGHT,
    ) -> None:
        self.host = host
        self.port = port
        self.faults = Faults(seed)
        self._region = Region(region, most_in_flight=most_in_flight)
        self._requests: Counter[str] = Counter()
        self._control = Control(self._region, self.faults, self._requests) if faults else None
        self._connections: set[Connection] = set()
        self._dispatcher: Dispatcher | None = None
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id: int | None = None

    @property
    def endpoint_url(self) -> str:
        """What a client takes as its endpoint; the port is known once the server runs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen; raises OSError if the port is taken."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._dispatcher = Dispatcher(
            self._region, self.faults, self._loop, requests=self._requests
        )
        self._server = await self._loop.create_server(
            lambda: Connection(self._handle, self._connections), self.host, self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, answer waiting receives with nothing, drop every connection."""
        if self._server is None or self._dispatcher is None:
            return
        self._server.close()
        self._dispatcher.close()
        for end in (Connection.close, Connection.abort):
            for connection in list(self._connections):
                end(connection)
            # A connection reports its end in the next turn of the loop, or the one after.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await self._server.wait_closed()
        self._server = self._dispatcher = self._loop = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @classmethod
    @contextmanager
    def in_thread(
        cls, port: int = 0, *, host: str = "127.0.0.1", faults: bool = False, seed: int = 0
    ) -> Generator[Self, None, None]:
        """Run a server in a thread with a loop of its own, for code that blocks."""
        server = cls(port, host=host, faults=faults, seed=seed)
        ready: Future[Callable[[], object]] = Future()
        thread = threading.Thread(
            target=asyncio.run, args=(server._run(ready),), name="sqs-server", daemon=True
        )
        thread.start()
        stop = ready.result(START_TIMEOUT_SECONDS)
        try:
            yield server
        finally:
            stop()
            thread.join()

    async def _run(self, ready: Future[Callable[[], object]]) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            await self.start()
        except OSError as error:
            ready.set_exception(error)
            return
        ready.set_result(partial(loop.call_soon_threadsafe, stopping.set))
        await stopping.wait()
        await self.close()

    def create_queue(self, name: str, **attributes: str | int) -> str:
        """Create a queue (a name ending in .fifo makes a FIFO queue) and return its URL."""
        texts = {key: str(value) for key, value in attributes.items()}
        if name.endswith(".fifo"):
            texts.setdefault("FifoQueue", "true")
        queue = self._on_loop(lambda: self._region.create(name, texts))
        return f"{self.endpoint_url}/{OWNER}/{queue.name}"

    def messages(self, queue_name: str) -> Counts:
        """How many messages of a queue are visible, in flight and delayed."""
        now = self._region.clock.now
        return self._on_loop(lambda: self._region.by_name(queue_name).counts(now()))

    def requests(self) -> Counter[str]:
        """How many requests came in, by operation; what AWS would send a bill for."""
        return self._on_loop(lambda: Counter(self._requests))

    def waiting_receives(self) -> int:
        """How many long polls are waiting for a message."""
        return self._on_loop(lambda: self._dispatcher.waiting() if self._dispatcher else 0)

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass: delays, visibility time-outs and other intervals end that early."""
        self._on_loop(lambda: self._advance(seconds))

    def wipe(self, queue_name: str | None = None) -> None:
        """Lose every message of one queue or of all, as a restart would; the queues stay."""
        self._on_loop(lambda: self._wipe(queue_name))

    def _advance(self, seconds: float) -> None:
        self._region.clock.advance(seconds)
        if self._dispatcher is not None:
            self._dispatcher.serve_soon()

    def _wipe(self, queue_name: str | None) -> None:
        for queue in self._region:
            if queue_name in (None, queue.name):
                queue.wipe()

    def _handle(self, request: Request, reply: Reply) -> None:
        if self._control is not None and request.path in PATHS:
            self._control.handle(request, reply)
        elif self._dispatcher is not None:
            self._dispatcher.handle(request, reply)

    def _on_loop(self, work: Callable[[], Result]) -> Result:
        """Run *work* in the server's thread and wait for its result."""
        if self._loop is None or threading.get_ident() == self._thread_id:
            return work()
        done: Future[Result] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(START_TIMEOUT_SECONDS)
