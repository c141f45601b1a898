"""Signals: the first SIGTERM or SIGINT asks to stop, the next one to hurry.

A process that is PID 1 of its container ignores SIGTERM until somebody handles
it, and imports take a second: so commands call `exit_on_term` before anything
else, and `on_stop` once there is something to stop. This module imports nothing
slow for the same reason.
"""

from __future__ import annotations

import signal
import sys
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


def on_stop(ask: Callable[[], None]) -> None:
    """Call *ask* in the running event loop for every stop signal from now on."""
    import asyncio

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, ask)
