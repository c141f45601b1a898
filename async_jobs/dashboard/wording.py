"""How times, shares and values are written on the pages. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

MASK = "•••"
MOST_SHOWN = 20_000
SHORTEST_HIDDEN = 3
_SECRET = re.compile(
    r"pass(word|phrase)?$|secret|token|api_?key|authorization|credential", re.IGNORECASE
)
# In a text: a name that sounds like a secret, what separates it, perhaps a scheme, and the value.
_TOLD = re.compile(
    r"((?:password|passphrase|passwd|secret|token|api_?key|authorization|credential)s?"
    r"[\"']?\s*[=:]\s*(?:(?:bearer|basic)\s+)?)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&)}\]]+)",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(\w+://[^\s:/@]{0,200}:)[^\s/@]{1,200}@")


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
    """*value* with what sounds like a secret masked: passwords, tokens, keys; in texts as well."""
    if isinstance(value, Mapping):
        return {
            name: MASK if _SECRET.search(str(name)) else redacted(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [redacted(each) for each in value]
    return (
        _IN_URL.sub(rf"\1{MASK}@", _TOLD.sub(_masked, value)) if isinstance(value, str) else value
    )


def hidden_texts(plain: Any, shown: Any) -> frozenset[str]:
    """What stands in *plain* and no more in *shown*: an error must not tell it either."""
    gone = _leaves(plain) - _leaves(shown)
    return frozenset(text for text in gone if len(text) >= SHORTEST_HIDDEN)


def without(value: Any, hidden: frozenset[str]) -> Any:
    """*value* with every one of the texts *hidden* masked, the longest first."""
    if isinstance(value, Mapping):
        return {name: without(each, hidden) for name, each in value.items()}
    if isinstance(value, list):
        return [without(each, hidden) for each in value]
    if isinstance(value, str):
        for text in sorted(hidden, key=len, reverse=True):
            value = value.replace(text, MASK)
    return value


def _masked(found: re.Match[str]) -> str:
    return f"{found.group(1)}{MASK}"


def _leaves(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return set().union(*map(_leaves, value.values()))
    if isinstance(value, list):
        return set().union(*map(_leaves, value))
    return set() if value is None or isinstance(value, bool) else {str(value)}
