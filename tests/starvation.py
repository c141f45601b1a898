"""Time that this machine owed to its processes: some of them waited for a processor.

A promise in seconds is about the product, not about what else runs beside it. So what is measured
against one is a `Stopwatch`, which stands still while something waits for a processor: on a quiet
machine hardly ever, on a busy one often, and there it proves that much less. Told by the kernel
(/proc/pressure/cpu, and what a host takes from its guest); where it does not tell, nothing is taken
off.
"""

from __future__ import annotations

import os
import re
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LOOK_EVERY_SECONDS = 0.1
_PRESSURE = Path("/proc/pressure/cpu")
_STAT = Path("/proc/stat")
_STOLEN = 8
"""The word of the first line of /proc/stat that counts what the host took."""


def starved_seconds() -> float:
    """For how long in all something has waited for a processor since the machine started."""
    try:
        waited = re.search(r"some .*total=(\d+)", _PRESSURE.read_text())
        words = _STAT.read_text().partition("\n")[0].split()
    except OSError:
        return 0.0
    stolen = int(words[_STOLEN]) / os.sysconf("SC_CLK_TCK") if len(words) > _STOLEN else 0.0
    return (int(waited[1]) / 1e6 if waited else 0.0) + stolen


class Stopwatch:
    """Runs from its making on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._starved = starved_seconds()

    @property
    def seconds(self) -> float:
        """How long ago that was, less what the machine owed."""
        return time.monotonic() - self._began - (starved_seconds() - self._starved)


@dataclass
class Record:
    """The same for times that are known only afterwards."""

    moments: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Note how it stands now."""
        self.moments.append(time.monotonic())
        self.totals.append(starved_seconds())

    def between(self, began: float, ended: float) -> float:
        """Seconds from one monotonic time to another, less what the machine owed."""
        if not self.totals:
            return ended - began
        last = len(self.totals) - 1
        before = self.totals[max(0, bisect_right(self.moments, began) - 1)]
        after = self.totals[min(last, bisect_left(self.moments, ended))]
        return ended - began - (after - before)

    def between_stamps(self, began: float, ended: float) -> float:
        """The same for two times of the wall clock; seconds since 1970."""
        to_monotonic = time.monotonic() - time.time()
        return self.between(float(began) + to_monotonic, float(ended) + to_monotonic)


@contextmanager
def recorded() -> Iterator[Record]:
    """A record that looks ten times a second."""
    record, over = Record(), threading.Event()

    def look() -> None:
        record.look()
        while not over.wait(LOOK_EVERY_SECONDS):
            record.look()

    thread = threading.Thread(target=look, name="starvation", daemon=True)
    thread.start()
    try:
        yield record
    finally:
        over.set()
        thread.join()
