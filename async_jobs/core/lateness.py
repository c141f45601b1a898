"""What a use case wants of work that is late, and how that is written on the row. Pure.

    on_late      the deadline passes before the attempt starts:
                 run it all the same, drop it (cancelled), or give it up (dead)
    late_retry   a failed attempt's retry would come after the deadline first promised:
                 allow it, clip its wait, or give the job up

Neither uses an attempt for a job that does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from async_jobs.core.record import MAX_MESSAGE, safe_text
from async_jobs.models import LateRetry, OnLate

MISSED = "DeadlineMissed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatenessPolicy:
    """What a use case wants of late jobs and of late retries."""

    on_late: OnLate = OnLate.RUN
    late_retry: LateRetry = LateRetry.ALLOW


RUN_LATE = LatenessPolicy()
"""The policy of a use case that sets none."""


def missed_error(late_by_seconds: float, *, attempt: int) -> dict[str, Any]:
    """The `last_error` of a job that was ended because it would have started late."""
    return {
        "type": MISSED,
        "message": f"not started: its deadline had passed {late_by_seconds:.3f} s before",
        "attempt": attempt,
        "late_by_seconds": round(late_by_seconds, 3),
    }


def given_up(failure: Mapping[str, Any], late_by_seconds: float) -> dict[str, Any]:
    """What replaces type and message of a *failure* whose retry would come too late."""
    text = (
        f"given up: the next attempt would come {late_by_seconds:.3f} s after the promised "
        f"deadline, and late_retry is give_up; the attempt failed with "
        f"{failure.get('type')}: {failure.get('message')}"
    )
    return {"type": MISSED, "message": safe_text(text, MAX_MESSAGE)}
