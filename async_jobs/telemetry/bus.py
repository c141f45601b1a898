"""Carries events to whoever listens. A listener that fails never hurts a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from async_jobs.telemetry.events import Event

Listener = Callable[[Event], None]


class Measure(Protocol):
    """Takes a figure that no event carries; from any thread, and never raises."""

    def __call__(self, name: str, value: float, **labels: str) -> None: ...


_log = logging.getLogger("async_jobs.telemetry")


class Bus:
    """Synchronous fan-out in the emitting thread: listeners must be quick and must not block.

    `measure` is None where nobody measures, so that figures cost a look at it and no more.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.measure: Measure | None = None
        self._listeners = list(listeners)

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: what nobody hears need not be made."""
        return bool(self._listeners)

    def emit(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                _log.exception("A telemetry listener failed on %s", type(event).__name__)
