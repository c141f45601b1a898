"""Restart the workers when code changes: `async-jobs dev --reload`.

Watches the Python files of the current folder and, where it lies elsewhere, of
the package that holds the handlers. The workers finish what they run first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from async_jobs.dev.ground import find_package
from async_jobs.errors import AsyncJobsError


def watched_folders(handlers_module: str, current: Path) -> list[Path]:
    """The folders to watch."""
    spec = find_package(handlers_module, current)
    places = spec.submodule_search_locations if spec is not None else None
    homes = [Path(place) for place in places or []]
    return [current, *(home for home in homes if not home.is_relative_to(current))]


async def restart_on_change(
    folders: list[Path], restart: Callable[[], Awaitable[list[str]]], say: Callable[[str], None]
) -> None:
    """Call *restart* after every change; raises AsyncJobsError where watchfiles is missing."""
    try:
        from watchfiles import PythonFilter, awatch
    except ImportError as error:
        raise AsyncJobsError(
            "--reload needs the package watchfiles: pip install watchfiles, "
            'or pip install -e ".[dev]"'
        ) from error
    async for changes in awatch(*folders, watch_filter=PythonFilter()):
        first = Path(min(path for _, path in changes)).name
        others = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        say(f"{first}{others} changed: restarting the workers")
        await restart()
