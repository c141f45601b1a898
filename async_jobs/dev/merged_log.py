"""One log out of many: every line gets the name of the process it came from.

In a terminal the names are coloured and aligned. The supervisor writes its own
lines with `say`. A stream that has gone (a closed terminal) is never an error:
the processes must still be stopped in order.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

OWN_NAME = "dev"
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"
_COLOURS = tuple(f"\x1b[{code}m" for code in (36, 33, 32, 35, 34, 96, 93, 92, 95, 94))


class MergedLog:
    """Writes lines with a prefix to *stream*; *names* are all that will ever write."""

    def __init__(self, names: Sequence[str], stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._width = max(len(name) for name in (OWN_NAME, *names))
        coloured = stream.isatty() and "NO_COLOR" not in os.environ
        self._colours = (
            {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}
            if coloured
            else {}
        )
        if coloured:
            self._colours[OWN_NAME] = _BOLD

    def say(self, text: str) -> None:
        """Write a line (or several) of the supervisor's own."""
        self.write(OWN_NAME, text.splitlines())

    def write(self, name: str, lines: Iterable[str]) -> None:
        """Write lines of the process *name*, all at once."""
        prefix = f"{name:<{self._width}} | "
        if name in self._colours:
            prefix = f"{self._colours[name]}{prefix}{_RESET}"
        self.plain("".join(f"{prefix}{line}\n" for line in lines))

    def plain(self, text: str) -> None:
        """Write *text* as it is."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
