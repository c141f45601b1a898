"""How a use case's capacity gives way when handlers report backpressure. Pure.

Additive increase, multiplicative decrease, as TCP does (Chiu & Jain 1989):

    a handler raised Backpressure     x 0.7, at most once in a window
    a window without any              + 1, up to the configured capacity
    never below                       1: one job at a time finds out whether it is over

The state is one row per use case while the capacity is lowered, and none otherwise. A scheduler
that slept through several quiet windows makes up for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

WINDOW_SECONDS = 10.0
LOWERED_TO = 0.7
LEAST = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """The capacity that is left, None before the first decision; times as seconds ago.

    `told_seconds` is when a handler last reported backpressure, `changed_seconds` when the
    capacity was last moved, or could have been: the end of the last quiet window counted.
    """

    capacity: int | None
    told_seconds: float
    changed_seconds: float


@dataclass(frozen=True, slots=True)
class Level:
    """The capacity from now on; `moved_seconds` ago it came to this (None: it stays as it was)."""

    capacity: int
    moved_seconds: float | None = None


def next_level(lowered: Lowered, full: int) -> Level:
    """The capacity of a use case that has *full* slots when all is well."""
    if lowered.capacity is None:
        return Level(_less(full), 0.0)
    capacity = min(lowered.capacity, full)
    if lowered.told_seconds < lowered.changed_seconds:
        # Reported since the last move: what was reported before is what that move answered.
        if lowered.changed_seconds >= WINDOW_SECONDS:
            return Level(_less(capacity), 0.0)
        return Level(capacity)
    quiet_windows = floor(lowered.changed_seconds / WINDOW_SECONDS)
    if not quiet_windows:
        return Level(capacity)
    left_over = lowered.changed_seconds - quiet_windows * WINDOW_SECONDS
    return Level(min(full, capacity + quiet_windows), left_over)


def seconds_to_next(lowered: Lowered) -> float:
    """Until the level may move again."""
    if lowered.capacity is None:
        return 0.0
    return max(0.0, WINDOW_SECONDS - lowered.changed_seconds)


def _less(capacity: int) -> int:
    return max(LEAST, int(LOWERED_TO * capacity))
