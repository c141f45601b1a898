"""Kills and stops processes at random, from a seed, and starts new ones for those killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from flows.stage import Process

from .troupe import Troupe

MOST_STOPPED = 3


@dataclass
class Storm:
    """What happens to *troupe*: `rage` for as long as it should."""

    troupe: Troupe
    random: Random
    done: Counter[str] = field(default_factory=Counter)
    _stopped: dict[str, tuple[Process, float]] = field(default_factory=dict)

    async def rage(self, seconds: float, *, longest_stop_seconds: float) -> None:
        """Kill or stop something a few times a second; in the end everything goes on."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._let_go_on(time.monotonic())
            self._strike(longest_stop_seconds)
            await asyncio.sleep(self.random.uniform(0.1, 0.6))
        self._let_go_on(float("inf"))

    def _strike(self, longest_stop_seconds: float) -> None:
        running = [one for one in self.troupe.processes if one.is_running]
        victim = self.random.choice([one for one in running if one.name not in self._stopped])
        role = victim.name.partition("-")[0]
        if self.random.random() < 0.4:
            victim.kill()
            self.troupe.start(role)
            self.done[f"{role} killed"] += 1
        elif len(self._stopped) < MOST_STOPPED:
            victim.send(signal.SIGSTOP)
            goes_on_at = time.monotonic() + self.random.uniform(0.05, longest_stop_seconds)
            self._stopped[victim.name] = (victim, goes_on_at)
            self.done[f"{role} stopped"] += 1

    def _let_go_on(self, now: float) -> None:
        for name, (process, goes_on_at) in list(self._stopped.items()):
            if goes_on_at <= now:
                process.send(signal.SIGCONT)
                del self._stopped[name]
