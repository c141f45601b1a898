"""Who may speak to the API: whoever shows the bearer token.

A `Gate` holds digests of the tokens and compares digests in constant time, so
that an answer's timing tells nothing about the token, however strange the
header is. Several tokens may be valid at once, for rotation without an outage.
It decides and nothing else: the answer 401 is made in `problems`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from async_jobs.errors import ConfigError

_LONGEST_HEADER_BYTES = 8_192
_REMEDY = (
    "set ASYNC_JOBS_ENQUEUE_AUTH_TOKEN and pass config.enqueue_auth_token, or pass "
    "require_auth_token=False where only callers you trust can reach the API"
)


class Gate:
    """Admits requests whose one Authorization header holds one of the tokens."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = [_digest(token.encode()) for token in tokens]

    def admits(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the raw *headers* show a token; takes equally long for every wrong one."""
        given = [value for name, value in headers if name.lower() == b"authorization"]
        usable = len(given) == 1 and len(given[0]) <= _LONGEST_HEADER_BYTES
        scheme, _, shown = (given[0] if usable else b"").strip().partition(b" ")
        digest = _digest(shown.strip())
        equal = [hmac.compare_digest(digest, expected) for expected in self._digests]
        return scheme.lower() == b"bearer" and any(equal)


def gate_for(expected: str | Sequence[str] | None) -> Gate:
    """A gate for the one token, or for several during a rotation.

    Raises ConfigError if there is none or one is blank: a gate that is open by
    mistake must not come to life.
    """
    if expected is None:
        raise ConfigError([f"expected_auth_token: is not set, so nobody could call; {_REMEDY}"])
    tokens = [expected] if isinstance(expected, str) else list(expected)
    if not tokens or not all(isinstance(token, str) and token.strip() for token in tokens):
        raise ConfigError([f"expected_auth_token: is blank; {_REMEDY}"])
    return Gate(token.strip() for token in tokens)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
