"""The benchmark of waiting works: it counts what a scheduler and a worker do, and judges it."""

from __future__ import annotations

import os
import threading
import time

import pytest

from bench import processes
from bench.contestants import HERE, read
from bench.idle import LIMITS, measure, summary
from bench.servers import running


@pytest.mark.slow
def test_two_idle_processes_are_measured() -> None:
    """The bound is far from what they do and near to what a loop that ticks would add."""
    ours = next(one for one in read(HERE) if one.name == "async-jobs-pg")
    with running() as servers:
        figures = measure(ours, servers, 2.0, settle_seconds=2.0, trickle_jobs=2)

    assert figures.keys() >= LIMITS.keys()
    for role in ("scheduler", "worker"):
        woken = figures[f"{role} wake-ups/min"]
        assert isinstance(woken, float)
        assert 0.0 < woken <= 600.0


@pytest.mark.parametrize(("statements", "verdict"), [(60.0, "met"), (60.1, "missed")])
def test_a_figure_at_its_limit_is_met(statements: float, verdict: str) -> None:
    table = summary({"async-jobs-pg": [{"statements/min": statements}]})

    assert table.rows == [["statements/min", "60", f"{statements:.2f} {verdict}"]]


def test_a_thread_that_was_awakened_counts() -> None:
    before = sum(processes.wakeups_by_role([os.getpid()]).values())
    for _ in range(5):
        thread = threading.Thread(target=time.sleep, args=(0.001,))
        thread.start()
        thread.join()
    time.sleep(0.001)

    assert sum(processes.wakeups_by_role([os.getpid()]).values()) > before
