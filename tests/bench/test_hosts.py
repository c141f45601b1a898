"""Hosts as network namespaces: what the table says, and who may not make them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.hosts import SLEEP_SECONDS, SLOTS, Reached, run


def test_hosts_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1_000)
    printed = io.StringIO()

    assert run(Console(file=printed)) == 2
    assert "root" in printed.getvalue()


def test_the_ideal_is_that_every_slot_is_always_full() -> None:
    ideal = 2 * SLOTS / SLEEP_SECONDS
    reached = Reached("sqs", 1, 2, ideal / 2, 0.1, 1.0, 1.0, 1.0)

    assert reached.of_ideal == 0.5
