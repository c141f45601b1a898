"""The commands, each in a module of its own.

A container's SIGTERM may come while a command is still importing, and PID 1
ignores it until somebody handles it. So a process that was started for one of
the commands handles it here, where its first import leads, before anything slow.
"""

from __future__ import annotations

import os
import sys

from async_jobs.runtime.signals import exit_on_term


def _is_started_for_us(program: str) -> bool:
    """Whether this is `async-jobs...`, or `python -m` on its way to one of our modules."""
    return program == "-m" or os.path.basename(program).startswith("async-jobs")


if _is_started_for_us(sys.argv[0] if sys.argv else ""):
    exit_on_term()
