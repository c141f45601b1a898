"""Signals: the first SIGTERM or SIGINT asks to stop, the next one to hurry.

A process that is PID 1 of its container ignores SIGTERM until somebody handles
it, and imports take a second: so commands call `exit_on_term` before anything
else, `leave_on_term` while they start, and `on_stop` once there is something to
stop. This module imports nothing slow for the same reason.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_term() -> None:
    """Until there is something to stop, end the process with exit code 0."""
    for number in _SIGNALS:
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def leave_on_term() -> None:
    """From now on, end the process at once with exit code 0; nothing is cleaned up.

    While a process starts, everything it has is a connection: closing that is clean enough, and
    whatever it waits for cannot hold it back.
    """
    for number in _SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def on_stop(ask: Callable[[], None], *, at_once: Callable[[], None] = lambda: None) -> None:
    """Call *ask* in the running event loop for every stop signal from now on.

    *at_once* is called before, whether the loop turns or is blocked.
    """
    import asyncio

    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        at_once()
        with suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(ask)

    for number in _SIGNALS:
        signal.signal(number, handle)
