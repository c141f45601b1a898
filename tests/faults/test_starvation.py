"""What the machine owed to its processes is taken off a measured time, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import starvation
from starvation import Record, Stopwatch, starved_seconds


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(starvation, "_PRESSURE", tmp_path / "cpu")
    monkeypatch.setattr(starvation, "_STAT", tmp_path / "stat")
    return tmp_path


def tell(kernel: Path, *, waited: float, stolen: float) -> None:
    full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=7"
    some = f"some avg10=9.99 avg60=1.00 avg300=0.10 total={waited * 1e6:.0f}"
    (kernel / "cpu").write_text(f"{some}\n{full}\n")
    ticks = int(stolen * os.sysconf("SC_CLK_TCK"))
    (kernel / "stat").write_text(f"cpu  1 2 3 4 5 6 7 {ticks} 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")


def test_what_was_waited_and_what_the_host_took_counts(kernel: Path) -> None:
    tell(kernel, waited=12.5, stolen=3.0)

    assert starved_seconds() == 15.5


def test_a_kernel_that_does_not_tell_owes_nothing(kernel: Path) -> None:
    assert starved_seconds() == 0.0


def test_a_stopwatch_goes_back_by_what_was_owed_meanwhile(kernel: Path) -> None:
    tell(kernel, waited=100.0, stolen=1.0)
    watch = Stopwatch()
    tell(kernel, waited=107.0, stolen=4.0)

    assert -10.0 <= watch.seconds < 0.0


def test_a_record_takes_off_what_was_owed_between_two_times() -> None:
    record = Record(moments=[10.0, 11.0, 12.0, 13.0], totals=[5.0, 5.0, 5.75, 5.75])

    assert record.between(10.0, 11.0) == 1.0
    assert record.between(11.0, 12.0) == 0.25
    assert record.between(10.5, 12.5) == 1.25
    assert record.between(9.0, 20.0) == 10.25
    assert Record().between(1.0, 3.0) == 2.0
