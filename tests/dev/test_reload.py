"""`--reload`: what is watched, and what a change does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from async_jobs.dev.reload import restart_on_change, watched_folders
from async_jobs.errors import AsyncJobsError


def test_the_current_folder_is_watched(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()

    assert watched_folders("shop.handlers", tmp_path) == [tmp_path]


def test_a_package_of_handlers_elsewhere_is_watched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elsewhere" / "shop_handlers"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere")])
    current = tmp_path / "here"

    assert watched_folders("shop_handlers.mail", current) == [current, package]


async def test_a_change_of_code_restarts_and_says_so(tmp_path: Path) -> None:
    restarted = asyncio.Event()
    said: list[str] = []

    async def restart() -> list[str]:
        restarted.set()
        return []

    async def edit_until_noticed() -> None:
        # The watch begins at a moment that nobody tells: write until it was seen.
        for version in range(1000):
            (tmp_path / "handlers.py").write_text(f"VERSION = {version}\n")
            if await _within(restarted, 0.2):
                break
        watching.cancel()

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(restart_on_change([tmp_path], restart, said.append))
        group.create_task(edit_until_noticed())

    assert restarted.is_set()
    assert said[0] == "handlers.py changed: restarting the workers"


async def test_without_watchfiles_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    with pytest.raises(AsyncJobsError, match="pip install watchfiles"):
        await restart_on_change([tmp_path], _nothing, print)


async def _nothing() -> list[str]:
    return []


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
