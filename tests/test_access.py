"""How tokens are configured, and what is said of those that cannot be used."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from async_jobs import AsyncJobsConfig
from async_jobs.access import ApiToken, Scope
from async_jobs.errors import ConfigError

DSN = "postgresql://nobody@127.0.0.1:1/none"
SECRET = "canary-6f1d"
GOOD = {"name": "shop", "token": SECRET, "scopes": ["enqueue", "read"]}


def config_with(tokens: object) -> AsyncJobsConfig:
    text = tokens if isinstance(tokens, str) else json.dumps(tokens)
    return AsyncJobsConfig.from_env({"ASYNC_JOBS_DB_DSN": DSN, "ASYNC_JOBS_API_TOKENS": text})


def test_a_token_has_a_name_scopes_and_maybe_a_tenant() -> None:
    [bound, free] = config_with(
        [GOOD | {"tenant_id": "tenant1"}, {"name": "ops", "token": "x", "scopes": ["operate"]}]
    ).api_tokens

    assert (bound.identity.name, bound.identity.tenant_id) == ("shop", "tenant1")
    assert bound.identity.scopes == {Scope.ENQUEUE, Scope.READ}
    assert free.identity.tenant_id is None
    assert free.identity.may(Scope.OPERATE)
    assert not free.identity.may(Scope.READ)


def test_a_digest_stands_in_place_of_the_token() -> None:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    hashed = {"name": "shop", "sha256": digest, "scopes": ["enqueue", "read"]}

    assert config_with([hashed]).api_tokens == config_with([GOOD]).api_tokens


def test_two_tokens_of_one_name_are_one_caller_in_a_rotation() -> None:
    [old, new] = config_with([GOOD, GOOD | {"token": "new"}]).api_tokens

    assert old.identity == new.identity


FAULTY: dict[str, Any] = {
    "no JSON": f"[{SECRET}",
    "an object": GOOD,
    "a text": json.dumps(SECRET),
    "an entry that is a text": [SECRET],
    "no name": [{"token": SECRET, "scopes": ["read"]}],
    "a name with a line break": [GOOD | {"name": f"{SECRET}\n"}],
    "no token": [{"name": "shop", "scopes": ["read"]}],
    "a blank token": [GOOD | {"token": "  "}],
    "a token that is a number": [GOOD | {"token": 7}],
    "a token with a line break": [GOOD | {"token": f"{SECRET}\nx"}],
    "a token with a lone surrogate": [GOOD | {"token": f"{SECRET}\ud800"}],
    "a token and a digest": [GOOD | {"sha256": "0" * 64}],
    "a digest too short": [{"name": "shop", "sha256": "abc", "scopes": ["read"]}],
    "a tenant null": [GOOD | {"tenant_id": None}],
    "a tenant blank": [GOOD | {"tenant_id": " "}],
    "no scopes": [{"name": "shop", "token": SECRET}],
    "scopes empty": [GOOD | {"scopes": []}],
    "scopes a text": [GOOD | {"scopes": "read"}],
    "an unknown scope": [GOOD | {"scopes": ["read", SECRET]}],
    "a scope that is a list": [GOOD | {"scopes": [["read"]]}],
    "an unknown key": [GOOD | {"tennant_id": "tenant1"}],
    "the same token twice": [GOOD, GOOD | {"name": "other"}],
    "the same key twice": f'[{{"name": "a", "name": "b","token":"{SECRET}","scopes":["read"]}}]',
}


@pytest.mark.parametrize("tokens", FAULTY.values(), ids=FAULTY.keys())
def test_a_token_that_is_in_doubt_is_refused_and_not_repeated(tokens: object) -> None:
    with pytest.raises(ConfigError, match="ASYNC_JOBS_API_TOKENS") as refused:
        config_with(tokens)

    assert SECRET not in str(refused.value)


def test_no_tokens_at_all_is_a_configuration_too() -> None:
    assert config_with([]).api_tokens == ()


def test_neither_token_nor_digest_is_shown_by_anything() -> None:
    config = config_with([GOOD])
    digest = hashlib.sha256(SECRET.encode())

    shown = f"{config!r} {config.api_tokens!r} {config.describe()!r}"

    assert SECRET not in shown
    assert digest.hexdigest() not in shown
    assert repr(digest.digest()) not in shown


def test_a_token_made_in_code_is_checked_by_the_same_rules() -> None:
    made = ApiToken.for_text(SECRET, name="shop", scopes=[Scope.READ], tenant_id="tenant1")

    assert made.identity.tenant_id == "tenant1"
    for wrong in ({"name": ""}, {"scopes": ["write"]}, {"scopes": []}, {"tenant_id": ""}):
        with pytest.raises(ConfigError):
            ApiToken.for_text(SECRET, **{"name": "shop"} | wrong)
