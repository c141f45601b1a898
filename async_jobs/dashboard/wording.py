"""How times, shares and values are written on the pages. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

MASK = "•••"
MOST_SHOWN = 20_000
_SECRET = re.compile(
    r"pass(word|phrase)?$|secret|token|api_?key|authorization|credential", re.IGNORECASE
)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "–"
    size = abs(seconds)
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if size >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if size >= 10 else f"{seconds:.1f} s"


def share(part: float | None) -> str:
    """A part of one in percent."""
    return "–" if part is None else f"{100 * part:.1f} %"


def moment(at: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def slack(deadline_at: datetime, at: datetime) -> str:
    """Time left at a moment, or how late it was."""
    left = (deadline_at - at).total_seconds()
    return f"{duration(left)} left" if left >= 0 else f"{duration(-left)} late"


def shown_json(value: Any) -> str:
    """JSON to be read, cut off where nobody reads on."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "\n…"


def redacted(value: Any) -> Any:
    """*value* with what sounds like a secret masked: passwords, tokens, keys."""
    if isinstance(value, Mapping):
        return {
            name: MASK if _SECRET.search(str(name)) else redacted(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [redacted(each) for each in value]
    return value
