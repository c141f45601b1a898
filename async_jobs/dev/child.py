"""One supervised process: started, its output passed on, restarted when it crashes, stopped.

    state      waiting to start -> running -> waiting to start again ... -> ended
    restart    after a growing wait, which a long life resets; at once when asked for
    stop       SIGTERM, then SIGKILL to the process and to all that it started
    hopeless   a part that ends with exit code 2 cannot be used as it is configured, and a
               foreground part has done its work: both end instead of being started again

Each process leads a session of its own, so Ctrl-C reaches only the supervisor.
The supervisor calls this; nothing here decides when the whole stack stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from async_jobs.dev.merged_log import MergedLog
from async_jobs.embedded.lifeline import Watchdog, kernel_can_watch, signal_on_our_death

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
HEALTHY_AFTER_SECONDS = 10.0
CANNOT_BE_USED = 2
_LONGEST_LINE_BYTES = 65_536
_LAST_OUTPUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What to run, and how to treat it."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] | None = None
    """The whole environment; None means ours."""
    cwd: Path | None = None
    foreground: bool = False
    """Owns the terminal; its end is the end of everything."""
    restarts_on_change: bool = False
    """Restarted when code changes, and kept waiting for a change when it cannot be used."""
    grace_seconds: float = 10.0


class Child:
    """A part and the process that runs it."""

    def __init__(self, part: Part, *, log: MergedLog, watchdog: Watchdog) -> None:
        self.part = part
        self._log = log
        self._watchdog = watchdog
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._started_at = 0.0
        self._stopping = False
        self._restarting = False
        self._wake = asyncio.Event()

    async def keep(self, on_end: Callable[[Part, int], None]) -> None:
        """Run the part until it is stopped or ends for good; then *on_end* gets its exit code."""
        crashes = 0
        while (code := await self._run_once()) is not None:
            if self._restarting:
                crashes = 0
                self._restarting = False
            elif self._is_final(code):
                on_end(self.part, code)
                return
            else:
                lived_long = time.monotonic() - self._started_at >= HEALTHY_AFTER_SECONDS
                crashes = 1 if lived_long else crashes + 1
                await self._pause_after(code, crashes)

    async def stop(self) -> None:
        """End the process politely, then firmly, and do not start it again."""
        self._stopping = True
        self._wake.set()
        await self._end_process()

    async def restart(self) -> None:
        """End the process and let `keep` start a new one at once."""
        self._wake.set()
        await self._end_process(restarting=True)

    def kill(self) -> None:
        """Kill the process and all that it started, now, and do not start it again."""
        self._stopping = True
        self._wake.set()
        if self._process is not None:
            _kill_group(self._process.pid)

    async def _run_once(self) -> int | None:
        """Run the process to its end; its exit code, or None when the part is to be stopped."""
        async with self._starting:
            if self._stopping:
                return None
            process, output = await self._start_process()
        try:
            async with asyncio.TaskGroup() as group:
                passing = group.create_task(self._pass_output_on(output))
                code = await process.wait()
                # What it started and left behind would hold the pipe open.
                _kill_group(process.pid)
                await asyncio.wait([passing], timeout=_LAST_OUTPUT_SECONDS)
                passing.cancel()
        finally:
            self._watchdog.forget(process.pid)
            self._process = None
        return None if self._stopping else code

    async def _start_process(self) -> tuple[asyncio.subprocess.Process, int | None]:
        """The new process and the end of the pipe that its output comes from."""
        self._wake.clear()
        self._started_at = time.monotonic()
        # Not asyncio's own pipe: with that, wait() also waits for whoever else holds it open.
        readable, writable = (None, None) if self.part.foreground else os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.part.command,
                env={**(self.part.env or os.environ), "PYTHONUNBUFFERED": "1"},
                cwd=self.part.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writable,
                stderr=writable,
                start_new_session=True,
                preexec_fn=signal_on_our_death(signal.SIGTERM) if kernel_can_watch() else None,
            )
        finally:
            if writable is not None:
                os.close(writable)
        self._watchdog.watch(self._process.pid)
        return self._process, readable

    async def _pass_output_on(self, output: int | None) -> None:
        if output is None:
            return
        reader = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", buffering=0)
        )
        rest = b""
        try:
            while chunk := await reader.read(_LONGEST_LINE_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST_LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                self._write(lines)
        finally:
            self._write([rest] if rest else [])
            pipe.close()

    def _write(self, lines: list[bytes]) -> None:
        self._log.write(self.part.name, [line.decode("utf-8", "replace") for line in lines])

    def _is_final(self, code: int) -> bool:
        return self.part.foreground or (code == CANNOT_BE_USED and not self.part.restarts_on_change)

    async def _pause_after(self, code: int, crashes: int) -> None:
        if code == CANNOT_BE_USED:
            self._log.say(f"{self.part.name} {_how(code)}; starts again when code changes")
            await self._wake.wait()
            return
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(crashes - 1, 10))
        self._log.say(f"{self.part.name} {_how(code)}; starts again in {pause:.1f} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()

    async def _end_process(self, *, restarting: bool = False) -> None:
        async with self._starting:  # a process that is just being started would be missed
            process = self._process
        if process is None:
            return
        self._restarting = restarting
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.part.grace_seconds):
                await process.wait()
        except TimeoutError:
            self._log.say(
                f"{self.part.name} did not stop within {self.part.grace_seconds:g} s and is killed"
            )
            _kill_group(process.pid)
            await process.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
