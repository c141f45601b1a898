"""What a process knows about its own state: is it alive, can it work, should it give up.

    alive      its event loop turns, every loop comes to the end of its passes, the heartbeat
               thread lives. A database that is away does not count: a new process could not
               reach it either, and this one works again the moment it is back
    ready      alive, its schema was checked, and the database answers now
    give up    not alive, or every loop failing, for so long without a break that a new process
               is the better hope

Everything here is read from the watch's thread and written from the event loop's; each value is
one object, so that neither waits for the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from async_jobs.runtime.loop import Loop

PASS_SECONDS = 20.0
"""How long a pass may last: a statement's time-out, the time to let go of it, and as much again."""
INTERVALS = 3
LEAST_PATIENCE_SECONDS = 1.0

Probe = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Watched:
    loop: Loop
    patience_seconds: float


class Health:
    """The state of one process; its parts are added while it starts."""

    def __init__(self, *, interval_seconds: float, give_up_seconds: float) -> None:
        self.blocked_seconds = 0.0
        self.stopping = False
        self.probe: Probe | None = None
        self._patience_seconds = INTERVALS * max(interval_seconds, LEAST_PATIENCE_SECONDS)
        self._give_up_seconds = give_up_seconds
        self._bad_since: float | None = None
        self._loops: list[_Watched] = []
        self._longest_lag_seconds = 0.0
        self._checks: list[Callable[[], str]] = []

    def watch(self, loops: Iterable[Loop], *, pass_seconds: float = PASS_SECONDS) -> None:
        """These must come to the end of a pass within three intervals and *pass_seconds*."""
        patience = self._patience_seconds + pass_seconds
        self._loops += [_Watched(loop, patience) for loop in loops]

    def check(self, fault: Callable[[], str]) -> None:
        """Ask *fault* what is wrong as long as the process works; it answers "" if nothing is."""
        self._checks.append(fault)

    def lagged(self, seconds: float) -> None:
        """The event loop let a call wait for so long."""
        self._longest_lag_seconds = max(self._longest_lag_seconds, seconds)

    def take_longest_lag(self) -> float:
        """The longest such wait since this was last asked."""
        longest, self._longest_lag_seconds = self._longest_lag_seconds, 0.0
        return longest

    def faults(self) -> list[str]:
        """Why the process is not alive, one text each; empty if it is."""
        now = time.monotonic()
        faults = [
            f"{one.loop.name} made no progress for {stuck:.1f} s"
            for one in self._loops
            if (stuck := one.loop.stuck_seconds(now)) > one.patience_seconds
        ]
        if self.blocked_seconds > self._patience_seconds:
            faults.append(f"the event loop has been blocked for {self.blocked_seconds:.1f} s")
        if not self.stopping:
            faults += [fault for check in self._checks if (fault := check())]
        return faults

    def hindrances(self) -> list[str]:
        """Why the process is not ready, as far as it knows without asking the database."""
        if self.stopping:
            return ["the process is stopping"]
        if self.probe is None:
            return ["the process is starting"]
        return self.faults()

    def given_up(self) -> str | None:
        """Why the process should leave to a new one; ask again and again."""
        why = self._cannot_work()
        now = time.monotonic()
        if not why or self.stopping:
            self._bad_since = None
            return None
        self._bad_since = self._bad_since or now
        if not self._give_up_seconds or now - self._bad_since < self._give_up_seconds:
            return None
        return f"for {now - self._bad_since:.1f} s: {why}"

    def _cannot_work(self) -> str:
        failing = [one.loop.name for one in self._loops if one.loop.is_failing]
        if failing and len(failing) == len(self._loops):
            return f"{', '.join(failing)} failed every time"
        return "; ".join(self.faults())
