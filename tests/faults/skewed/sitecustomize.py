"""Skews the clocks of a Python process: found on PYTHONPATH, Python imports this before all else.

The file that FAULT_CLOCK names holds `step rate`: the wall clock is *step* seconds ahead, and the
monotonic clock runs *rate* times as fast. It is read again ten times a second, so that a clock can
step while the process runs.
"""

from __future__ import annotations

import datetime as module
import os
import time
from pathlib import Path
from typing import Self

_wall, _steady = time.time, time.monotonic
_began = _steady()
_file = Path(os.environ["FAULT_CLOCK"])
_read_at = float("-inf")
_skew = (0.0, 1.0)


def _now_skewed() -> tuple[float, float]:
    global _read_at, _skew  # a clock is global
    if _steady() - _read_at > 0.1:
        _read_at = _steady()
        step, rate = _file.read_text().split()
        _skew = (float(step), float(rate))
    return _skew


def _skewed_time() -> float:
    return _wall() + _now_skewed()[0]


def _skewed_monotonic() -> float:
    return _began + (_steady() - _began) * _now_skewed()[1]


class _Datetime(module.datetime):
    @classmethod
    def now(cls, tz: module.tzinfo | None = None) -> Self:
        return cls.fromtimestamp(_skewed_time(), tz)

    @classmethod
    def utcnow(cls) -> Self:
        return cls.fromtimestamp(_skewed_time(), module.UTC).replace(tzinfo=None)


time.time = _skewed_time
time.monotonic = _skewed_monotonic
module.datetime = _Datetime  # type: ignore[misc] # the purpose of this file
