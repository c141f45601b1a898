"""Ports, the data folder and the checkout that the stack stands on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import async_jobs
from async_jobs.dev import ground
from async_jobs.dev.ground import (
    api_port,
    data_folder,
    free_port,
    source_checkout,
    until_it_accepts,
)
from async_jobs.errors import AsyncJobsError


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(taken_port: int) -> None:
    with pytest.raises(AsyncJobsError, match=rf"Port {taken_port} is taken.*--port"):
        api_port(taken_port)


def test_the_usual_port_gives_way_to_a_free_one_when_it_is_taken(
    taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground, "USUAL_PORT", taken_port)

    assert api_port(None) != taken_port


def test_a_free_port_that_was_asked_for_is_used() -> None:
    port = free_port()

    assert api_port(port) == port


async def test_waiting_for_a_port_ends_when_somebody_listens(taken_port: int) -> None:
    await until_it_accepts(taken_port)


def test_a_data_folder_is_used_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        data_folder(tmp_path / "data"),
        pytest.raises(AsyncJobsError, match="Another async-jobs dev uses"),
        data_folder(tmp_path / "data"),
    ):
        pass
    with data_folder(tmp_path / "data"):
        pass


def test_a_data_folder_is_never_committed(tmp_path: Path) -> None:
    with data_folder(tmp_path / "data"):
        assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"


def test_the_demo_is_found_in_the_checkout() -> None:
    assert (source_checkout() / "examples" / "handlers.py").is_file()


def test_without_the_checkout_the_error_says_where_the_demo_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_jobs, "__file__", str(tmp_path / "lib" / "x" / "__init__.py"))

    with pytest.raises(AsyncJobsError, match="ships with the source checkout"):
        source_checkout()


def test_the_demo_names_the_packages_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "_PACKAGES_OF_THE_DEMO", ("no_such_package",))

    with pytest.raises(AsyncJobsError, match=r"no_such_package.*pip install"):
        source_checkout()
