"""Who may do what over HTTP: names, tenants, scopes, and the digests of the tokens that prove it.

    Scope      enqueue, read, operate: what an endpoint asks for
    Identity   a caller: its name (for the audit line), its tenant if it is bound to one, its scopes
    ApiToken   an identity and the SHA-256 of the text that proves it; the text itself is not kept

Pure. `config` reads ASYNC_JOBS_API_TOKENS with `checked_tokens`, the API's gate and every other
page that asks for a token go by what is here. No problem, and no `repr`, holds a token or its
digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from async_jobs.errors import ConfigError
from async_jobs.settings import hint

_NAME = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = ("name", "token", "sha256", "tenant_id", "scopes")


class Scope(StrEnum):
    """What a token is good for; none includes another."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller of the API. With a `tenant_id` it sees and touches that tenant's jobs only."""

    name: str
    tenant_id: str | None = None
    scopes: frozenset[Scope] = ALL_SCOPES

    def may(self, scope: Scope) -> bool:
        """Whether this caller has *scope*."""
        return scope in self.scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token that the API accepts: whose it is, and its digest. Make one with `for_text`.

    Two tokens with one name are one caller, as during a rotation.
    """

    identity: Identity
    digest: bytes = field(repr=False)

    @classmethod
    def for_text(
        cls,
        text: str,
        *,
        name: str,
        scopes: Iterable[Scope | str] = ALL_SCOPES,
        tenant_id: str | None = None,
    ) -> ApiToken:
        """The token that is shown as *text*; raises ConfigError if that is blank.

        Also if *name* or *tenant_id* is no name, or *scopes* holds none or an unknown one.
        """
        given = {"name": name, "token": text, "scopes": list(scopes)}
        if tenant_id is not None:
            given["tenant_id"] = tenant_id
        tokens, problems = checked_tokens("ApiToken", [given])
        if problems:
            raise ConfigError(problems)
        return tokens[0]


def digest_of(token: bytes) -> bytes:
    """What is kept and compared in place of a token."""
    return hashlib.sha256(token).digest()


def checked_tokens(variable: str, given: object) -> tuple[tuple[ApiToken, ...], list[str]]:
    """Tokens, made of plain objects where needed, and what is wrong with them."""
    tokens: list[ApiToken] = []
    problems: list[str] = []
    for place, each in enumerate(given if isinstance(given, Sequence) else (), 1):
        found = [] if isinstance(each, ApiToken) else list(_problems_of(each))
        if not found:
            token = each if isinstance(each, ApiToken) else _token_of(each)
            if any(token.digest == other.digest for other in tokens):
                found = ["is the same token as one before; each token stands for one caller"]
            tokens.append(token)
        problems.extend(f"{variable}: entry {place}: {text}" for text in found)
    return tuple(tokens), problems


def _token_of(given: Mapping[str, Any]) -> ApiToken:
    text = given.get("token")
    return ApiToken(
        identity=Identity(
            name=given["name"],
            tenant_id=given.get("tenant_id"),
            scopes=frozenset(Scope(each) for each in given["scopes"]),
        ),
        digest=bytes.fromhex(given["sha256"]) if text is None else digest_of(text.strip().encode()),
    )


def _problems_of(given: object) -> Iterable[str]:
    if not isinstance(given, Mapping):
        yield 'needs a JSON object, such as {"name": "shop", "token": "...", "scopes": ["enqueue"]}'
        return
    for key in given:
        if key not in _KEYS:
            yield f"unknown key{hint(str(key), _KEYS)}; the keys are {', '.join(_KEYS)}"
    if not _is_name(given.get("name")):
        yield "name: needs 1 to 128 characters of A-Z a-z 0-9 . _ : @ / -"
    if "tenant_id" in given and not _is_name(given["tenant_id"]):
        yield "tenant_id: needs a tenant's identifier; leave it out for a token for all tenants"
    yield from _secret_problems(given)
    scopes = given.get("scopes")
    listed = scopes if isinstance(scopes, list) else []
    if not listed or not all(isinstance(each, str) and each in ALL_SCOPES for each in listed):
        yield f"scopes: needs a list of one or more of {', '.join(Scope)}"


def _secret_problems(given: Mapping[str, Any]) -> Iterable[str]:
    if ("token" in given) == ("sha256" in given):
        yield "needs either token or sha256"
    if "token" in given and not _is_secret(given["token"]):
        yield "token: is blank or no text; set it to a long random text"
    if "sha256" in given and not _fits(_HEX_DIGEST, given["sha256"]):
        yield "sha256: needs the 64 lower-case hexadecimal digits of the token's SHA-256"


def _is_name(value: object) -> bool:
    return _fits(_NAME, value)


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))


def _is_secret(value: object) -> bool:
    """Whether *value* can be sent as a header: text without lone surrogates, and not blank."""
    if not isinstance(value, str) or not value.strip() or not value.strip().isprintable():
        return False
    return not any("\ud800" <= char <= "\udfff" for char in value)
