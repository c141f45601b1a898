"""Whose time counts: the database's, unless a test or a simulation says otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the statements what time it is; None lets the database say."""

    def now(self) -> datetime | None: ...


class DatabaseClock:
    """The clock of production: every comparison uses the one clock all processes share."""

    def now(self) -> None:
        return None
