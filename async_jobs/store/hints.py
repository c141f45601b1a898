"""Hints: "there may be work", carried by NOTIFY, needed by nobody.

    async_jobs_due      topic: a use case with newly waiting jobs; empty: look at everything;
                        "*": operators have changed something
    async_jobs_leased   topic: a queue whose leased jobs workers take straight from the table

A listener that dies, or a pooler that swallows LISTEN, costs latency up to the
polling interval and nothing else. Senders coalesce: a NOTIFY per insert would
serialise commits (measured: 8 inserting clients fall to 0.38 of their rate), so
a process sends one per topic and 5 ms, and no more than 100 a second for long;
whoever was woken looks again for longer than that.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping

import psycopg

from async_jobs.store.pace import PacedConnection

CONNECT_TIMEOUT_SECONDS = 5
COALESCE_SECONDS = 0.005
MOST_PER_SECOND = 100.0
BURST = 20.0
CHECK_EVERY_SECONDS = 30.0
TAKE_IN_SECONDS = 0.01
LOOK_AT_EVERYTHING = ""
OVERRIDES_CHANGED = "*"


class Coalescer:
    """Lets a topic through 5 ms after the last time, for long no more than 100 times a second."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[float, float]] = {}

    def let_through(self, topics: Iterable[str]) -> list[str]:
        """Those of *topics* that may be sent; they count as sent now."""
        now = time.monotonic()
        return [topic for topic in set(topics) if self._may_go(topic, now)]

    def _may_go(self, topic: str, now: float) -> bool:
        sent_at, credit = self._sent.get(topic, (-math.inf, BURST))
        credit = min(BURST, credit + (now - sent_at) * MOST_PER_SECOND)
        if now - sent_at < COALESCE_SECONDS or credit < 1.0:
            return False
        self._sent[topic] = (now, credit - 1.0)
        return True


class HintListener:
    """Listens with a connection of its own: what *hears* the hints of each channel."""

    def __init__(
        self,
        dsn: str,
        hears: Mapping[str, Callable[[str], None]],
        *,
        application_name: str,
        on_connect: Callable[[], None] = lambda: None,
    ) -> None:
        self._dsn = dsn
        self._hears = hears
        self._on_connect = on_connect
        self._application_name = application_name
        self._conn: psycopg.AsyncConnection[object] | None = None

    async def tick(self) -> float:
        """Listen until the connection breaks (raises) or it is time to check on it."""
        if self._conn is None:
            self._conn = await self._connected()
            self._on_connect()
        try:
            await self._hear(self._conn)
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await self._conn.execute("SELECT 1")
        except (psycopg.Error, TimeoutError):
            await self.close()
            raise
        return 0.0

    async def _hear(self, conn: psycopg.AsyncConnection[object]) -> None:
        """Take in hints until it is time to check; those first that came with an answer."""
        until = time.monotonic() + CHECK_EVERY_SECONDS
        while True:
            async for notice in conn.notifies(timeout=TAKE_IN_SECONDS):
                self._hears[notice.channel](notice.payload)
            if not await _readable(conn.fileno(), until - time.monotonic()):
                return

    async def close(self) -> None:
        if self._conn is not None:
            await self._conn.close()
            self._conn = None

    async def _connected(self) -> psycopg.AsyncConnection[object]:
        conn = await PacedConnection.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name=self._application_name,
        )
        try:
            # A connection that went silent must not keep the loop from trying another one.
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                for channel in self._hears:
                    await conn.execute(f"LISTEN {channel}".encode())
        except BaseException:
            await conn.close()
            raise
        return conn


async def _readable(line: int, seconds: float) -> bool:
    """Whether anything arrives on *line* within *seconds*.

    psycopg's own wait for notifications looks around ten times a second: most of what an idle
    process would cost.
    """
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(line, arrived.set)
    try:
        async with asyncio.timeout(seconds):
            await arrived.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(line)
    return True
