"""Runs the processes of `async-jobs dev` and makes sure that none outlives it.

    start     stage by stage; within a stage together
    crash     the process is started again, see `child.py`
    stop      Ctrl-C, SIGTERM, SIGHUP (a closed terminal) or the end of a foreground part: the
              stages are stopped in reverse order; a second Ctrl-C or SIGTERM kills
    kill -9   the kernel (on Linux) and a watchdog process end the processes

It knows nothing about jobs: what to run is `stack.py`'s business.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from async_jobs.dev.child import CANNOT_BE_USED, Child, Part
from async_jobs.dev.merged_log import MergedLog
from async_jobs.embedded.lifeline import Watchdog

ORPHANS_GRACE_SECONDS = 5.0
_STOP_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


class Supervisor:
    """Starts parts and stops them; `run` once."""

    def __init__(self, log: MergedLog) -> None:
        self._log = log
        self._stages: list[list[Child]] = []
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._failure: BaseException | None = None

    async def run(self, launch: Callable[[], Awaitable[None]]) -> int:
        """Run *launch*, which calls `start`, then wait for the stop; the exit code.

        *launch* may go on as long as it likes and is cancelled at the stop. What it
        raises stops everything and is raised again.
        """
        self._watchdog = Watchdog(signal.SIGTERM, kill_after_seconds=ORPHANS_GRACE_SECONDS)
        try:
            with self._handling_signals():
                async with asyncio.TaskGroup() as self._group:
                    launching = self._group.create_task(self._guarded(launch))
                    await self._stopping.wait()
                    launching.cancel()
                    await asyncio.wait([launching])
                    await self._stop_stages()
        finally:
            self._watchdog.dismiss()
        if self._failure is not None:
            raise self._failure
        return self._exit_code

    def start(self, *parts: Part) -> None:
        """Start *parts* together as the next stage."""
        stage = [Child(part, log=self._log, watchdog=self._watchdog) for part in parts]
        self._stages.append(stage)
        for child in stage:
            self._group.create_task(child.keep(self._ended))

    def stop(self, exit_code: int = 0) -> None:
        """Let `run` stop everything and return *exit_code*; only the first call counts."""
        if not self._stopping.is_set():
            self._exit_code = exit_code
            self._stopping.set()

    async def restart_on_change(self) -> list[str]:
        """Restart the parts that want it when code changes; their names."""
        children = [
            child for stage in self._stages for child in stage if child.part.restarts_on_change
        ]
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(child.restart())
        return [child.part.name for child in children]

    async def _guarded(self, launch: Callable[[], Awaitable[None]]) -> None:
        try:
            await launch()
        except Exception as error:
            self._failure = error
            self.stop(1)

    async def _stop_stages(self) -> None:
        for stage in reversed(self._stages):
            async with asyncio.TaskGroup() as group:
                for child in stage:
                    group.create_task(child.stop())

    def _ended(self, part: Part, code: int) -> None:
        if code == CANNOT_BE_USED and not part.foreground:
            self._log.say(f"{part.name} cannot be used as it is configured; everything stops")
        self.stop(code if code >= 0 else 128 - code)

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = dict(_STOP_SIGNALS)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: wanted to outlive a terminal
            del handled[signal.SIGHUP]
        for number, name in handled.items():
            loop.add_signal_handler(number, self._on_signal, number, name)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals, name: str) -> None:
        if not self._stopping.is_set():
            self._log.say(f"{name}: stopping; once more kills")
            self.stop()
        elif number is not signal.SIGHUP:  # a closed terminal may send it twice
            self._log.say(f"{name} again: killing")
            for stage in self._stages:
                for child in stage:
                    child.kill()
