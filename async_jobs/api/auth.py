"""Who may speak to the API: whoever shows a bearer token that it knows.

A `Gate` holds digests of the tokens and compares digests in constant time, so
that an answer's timing tells nothing about a token, however strange the header
is. Several tokens may be valid at once, for rotation without an outage. It says
whose token was shown and nothing else: the answers 401 and 403 are made in
`problems`, and `route` leaves the identity with the request, where `identity_of`
finds it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from async_jobs.access import ApiToken, Identity, digest_of
from async_jobs.errors import ConfigError

_LONGEST_HEADER_BYTES = 8_192
_PLACE = "async_jobs.identity"
_REMEDY = (
    "set ASYNC_JOBS_ENQUEUE_AUTH_TOKEN and pass config.enqueue_auth_token, set "
    "ASYNC_JOBS_API_TOKENS and pass tokens=config.api_tokens, or pass require_auth_token=False "
    "where only callers you trust can reach the API"
)

ANYBODY = Identity(name="anybody")
"""Every caller, where no token is asked for."""
OWNER = Identity(name="api-token")
"""Whoever shows the one token of ASYNC_JOBS_ENQUEUE_AUTH_TOKEN: it is good for everything."""


class Gate:
    """Knows whose token the one Authorization header of a request holds."""

    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        self._tokens = tuple(tokens)

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Identity | None:
        """Who shows a token in the raw *headers*; takes equally long for every wrong one."""
        given = [value for name, value in headers if name.lower() == b"authorization"]
        usable = len(given) == 1 and len(given[0]) <= _LONGEST_HEADER_BYTES
        scheme, _, shown = (given[0] if usable else b"").strip().partition(b" ")
        digest = digest_of(shown.strip())
        equal = [hmac.compare_digest(digest, token.digest) for token in self._tokens]
        if scheme.lower() != b"bearer" or not any(equal):
            return None
        return self._tokens[equal.index(True)].identity


def gate_for(expected: str | Sequence[str] | None, tokens: Sequence[ApiToken] = ()) -> Gate:
    """A gate for the one token or for several during a rotation, and for *tokens* beside them.

    Raises ConfigError if there is none or one is blank: a gate that is open by
    mistake must not come to life.
    """
    texts = [expected] if isinstance(expected, str) else list(expected or ())
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError([f"expected_auth_token: is blank; {_REMEDY}"])
    if not texts and (expected is not None or not tokens):
        raise ConfigError([f"expected_auth_token: is not set, so nobody could call; {_REMEDY}"])
    if not all(isinstance(token, ApiToken) for token in tokens):
        raise ConfigError(["tokens: needs ApiToken objects; make them with ApiToken.for_text"])
    owner = [ApiToken(identity=OWNER, digest=digest_of(text.strip().encode())) for text in texts]
    known = [*tokens, *owner]
    if len({token.digest for token in known}) < len(set(texts)) + len(tokens):
        raise ConfigError(["tokens: one token stands for two callers; give each its own"])
    return Gate(known)


class ShownBearer(HTTPBearer):
    """Says in the OpenAPI document that a token is asked for; the route has read it by then."""

    def __init__(self) -> None:
        super().__init__(scheme_name="HTTPBearer", auto_error=False)

    async def __call__(self, request: HTTPConnection) -> None:
        """Nothing, in less time than it takes to read the header a second time."""


def identify(gate: Gate | None, request: Request) -> Identity | None:
    """Who makes *request*, None if nobody known; leaves it for `identity_of`."""
    identity = ANYBODY if gate is None else gate.identify(request.headers.raw)
    if identity is not None:
        request.scope[_PLACE] = identity
    return identity


def identity_of(request: Request) -> Identity:
    """Who makes *request*, whom the route has let in; KeyError on a route that asks nobody."""
    identity: Identity = request.scope[_PLACE]
    return identity
