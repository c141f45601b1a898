"""Tells when a use case comes under pressure and when it is over, once each."""

from __future__ import annotations

from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import PressureBegan, PressureEnded

QUIET_SECONDS = 5.0


class Pressure:
    """Pressure that comes and goes within `QUIET_SECONDS` is told as one."""

    def __init__(self, use_case: str, bus: Bus) -> None:
        self._use_case = use_case
        self._bus = bus
        self._began_at: float | None = None
        self._last_at = 0.0

    def seen(self, pressure: bool, *, at: float) -> None:
        """A pass found late jobs, or none, at the monotonic time *at*."""
        if pressure:
            self._last_at = at
            if self._began_at is None:
                self._began_at = at
                self._bus.emit(PressureBegan(use_case=self._use_case))
        elif self._began_at is not None and at - self._last_at >= QUIET_SECONDS:
            lasted = self._last_at - self._began_at
            self._began_at = None
            self._bus.emit(PressureEnded(use_case=self._use_case, lasted_seconds=lasted))
