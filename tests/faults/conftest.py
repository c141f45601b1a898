"""One ground for all fault runs; each test makes a run of its own on it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import ground as grounds
from .ground import Ground, Run

MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    with grounds.ground() as made:
        yield made


@pytest.fixture
def make_run(ground: Ground, tmp_path: Path) -> Iterator[MakeRun]:
    """Makes a run; keywords are settings of its processes."""
    made: list[Run] = []
    ground.heal()

    def make(**settings: Any) -> Run:
        dsn, url = ground.database(), ground.queue_url()
        made.append(Run(dsn, url, tmp_path, settings, ground=ground))
        return made[-1]

    yield make
    ground.heal()
    for run in made:
        for process in run.processes:
            if process.is_running:
                process.send(signal.SIGCONT)
        run.close()
