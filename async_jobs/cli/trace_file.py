"""Reads a trace from a file, plain or gzip, for the commands that run one."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from async_jobs.errors import TraceError
from async_jobs.simulation.arrivals import Workload, from_trace


def read_trace(path: Path) -> Workload:
    """The workload in a CSV; one whose name ends in `.gz` is unpacked as it is read.

    Raises ValueError with a text for people when the file or a line of it cannot be read.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
            return from_trace(path.name, lines)
    except TraceError as error:
        raise ValueError(str(error)) from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = f"the file cannot be read as UTF-8 text ({type(error).__name__})"
        raise ValueError(reason) from None
