"""The protocol model holds in every order of moves, and each weaker design is caught."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from model.explore import explore  # noqa: E402 - its folder is on the path from here on
from model.lease import Bounds, Design  # noqa: E402
from model.properties import PROPERTIES  # noqa: E402
from model.weakened import WEAKENED, Weakened  # noqa: E402


@pytest.mark.slow
def test_the_script_finds_that_the_design_holds_and_that_a_weaker_one_does_not() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "model" / "check", "--only", "finish_without_fence", "--traces"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "all properties hold" in done.stdout
    assert "breaks: only the holder writes" in done.stdout
    assert "1 of 1 weakened designs are caught" in done.stdout


@pytest.mark.slow
def test_the_script_names_the_weaker_designs_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "model" / "check", "--only", "none of them"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert "finish_without_fence" in done.stderr


@pytest.mark.parametrize("weakened", WEAKENED, ids=lambda one: one.switch)
def test_a_weakened_design_breaks_the_property_that_is_meant_to_catch_it(
    weakened: Weakened,
) -> None:
    found = explore(weakened.design, Bounds(leases=3), until=weakened.breaks)

    assert weakened.breaks in found.broken


def test_every_switch_of_the_design_is_tried() -> None:
    assert [one.switch for one in WEAKENED] == [switch.name for switch in fields(Design)]


def test_every_property_is_broken_by_some_weaker_design() -> None:
    assert {one.breaks for one in WEAKENED} == set(PROPERTIES)


def test_the_shortest_way_to_two_outcomes_is_told() -> None:
    broken = "only the holder writes"
    found = explore(Design(finish_without_fence=True), Bounds(leases=3), until=broken)

    trace = found.broken[broken]
    assert trace[-3:] == ["retry at once 1", "claim", "succeed 1"]
