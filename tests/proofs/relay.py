"""A TCP relay before PostgreSQL that loses notifications, silently or with the connection.

pass      everything goes through
silent    a connection that listens, or begins to, stays open and carries nothing back
refuse    such a connection is closed, each time
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Mode = Literal["pass", "silent", "refuse"]


class Relay:
    """Listens on a free port of 127.0.0.1 and passes on to *port*."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.mode: Mode = "pass"
        self._to = port
        self.began = threading.Event()
        self._listening: list[asyncio.StreamWriter] = []

    def lose_hints(self, mode: Mode) -> None:
        """From now on no notification arrives."""
        self.mode = mode
        if mode == "refuse":
            self._loop.call_soon_threadsafe(self._close_listening)

    def stop(self) -> None:
        """Let `serve` end; from any thread."""
        self._loop.call_soon_threadsafe(self._ended.set)

    def _close_listening(self) -> None:
        for writer in self._listening:
            writer.close()

    async def serve(self) -> None:
        """Pass on until `stop`."""
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.began.set()
        await self._ended.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        # A connection that is aborted closes its socket in the next turn of the loop.
        await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            with suppress(OSError):
                await asyncio.gather(
                    self._forth(reader, to_server, writer), self._back(from_server, writer)
                )
        finally:
            for each in (writer, to_server):
                each.transport.abort()

    async def _forth(
        self,
        reader: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        while content := await reader.read(65_536):
            if b"LISTEN async_jobs" in content:
                self._listening.append(client)
                if self.mode == "refuse":
                    client.close()
                    break
            to_server.write(content)
            await to_server.drain()
        to_server.close()

    async def _back(self, from_server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while content := await from_server.read(65_536):
            if self.mode == "silent" and client in self._listening:
                continue
            client.write(content)
            await client.drain()
        client.close()


@contextmanager
def relayed(port: int) -> Iterator[Relay]:
    """A relay in a thread with a loop of its own."""
    relay = Relay(port)
    thread = threading.Thread(target=lambda: asyncio.run(relay.serve()))
    thread.start()
    assert relay.began.wait(10)
    try:
        yield relay
    finally:
        relay.stop()
        thread.join(10)
