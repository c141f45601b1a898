"""The one loop all services share: tick, sleep, survive.

    tick fails     counted, told once per failure, next try after a growing, jittered wait
    tick works     sleeps as long as the tick says, or until somebody wakes the loop
    stop           ends the sleep at once; a running tick is never cut off

What a tick does is its own affair; a loop has no logic. `stuck_seconds`, `is_failing`
and `progress_at` let health checks see that it still turns, and whether it gets anywhere.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import LoopFailed, LoopRecovered

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 3.0

Tick = Callable[[], Awaitable[float]]


class Loop:
    """Calls `tick` again and again; the tick returns how many seconds to sleep."""

    def __init__(self, name: str, tick: Tick, *, bus: Bus) -> None:
        self.name = name
        self.progress_at = time.monotonic()
        self._tick = tick
        self._runs = False
        self._due_at = 0.0
        self._bus = bus
        self._failures = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self._longest_seconds = 0.0

    def wake(self) -> None:
        """End the sleep; if the loop is in a tick, it ticks once more right after it."""
        self._wake.set()

    def stop(self) -> None:
        """Let `run` return after the tick it is in. May be called before `run`."""
        self._stopping = True
        self._wake.set()

    @property
    def is_failing(self) -> bool:
        """Whether the last pass failed."""
        return self._failures > 0

    def stuck_seconds(self, now: float) -> float:
        """How long ago the pass it is in, or its sleep, should have ended; 0 unless it runs.

        A pass that fails ends too.
        """
        return max(0.0, now - self._due_at) if self._runs else 0.0

    def take_longest(self) -> float:
        """How long the longest pass took since this was last asked, in seconds."""
        longest, self._longest_seconds = self._longest_seconds, 0.0
        return longest

    async def run(self) -> None:
        self._due_at = time.monotonic()
        self._runs = True
        try:
            while not self._stopping:
                self._wake.clear()
                pause = await self._guarded_tick()
                self._due_at = time.monotonic() + pause
                await self._sleep(pause)
                self._due_at = time.monotonic()
        finally:
            self._runs = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs beside what is done inside; a tick that is under way at the end is cut off."""
        task = asyncio.get_running_loop().create_task(self.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _guarded_tick(self) -> float:
        began = time.monotonic()
        try:
            pause = await self._tick()
        except Exception as error:
            return self._failed(error)
        self.progress_at = now = time.monotonic()
        if now - began > self._longest_seconds:
            self._longest_seconds = now - began
        if (measure := self._bus.measure) is not None:
            measure("async_jobs.tick", now - began, loop=self.name)
        if self._failures:
            self._bus.emit(LoopRecovered(loop=self.name, failures=self._failures))
            self._failures = 0
        return pause

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        most = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 10))
        pause = most * random.uniform(0.75, 1.25)
        self._bus.emit(
            LoopFailed(loop=self.name, error=error, failures=self._failures, retry_in_seconds=pause)
        )
        # A failing loop is not hurried: hints must not turn an outage into a storm.
        self._wake.clear()
        return pause

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0 or self._stopping:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wait(failing=self._failures > 0)
        except TimeoutError:
            pass

    async def _wait(self, *, failing: bool) -> None:
        while True:
            await self._wake.wait()
            if self._stopping or not failing:
                return
            self._wake.clear()
