"""A scheduler that sends as much ahead as the capacity allows: what the window must match."""

from __future__ import annotations

from async_jobs.cli.scheduler import main
from async_jobs.core.window import Window


def room(self: Window, *, unstarted: int, old: int, at: float) -> int:
    return self.capacity


if __name__ == "__main__":
    Window.room = room  # type: ignore[method-assign] # wrong on purpose
    main()
