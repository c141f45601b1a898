"""How long to wait after a failed attempt. Pure: the random number comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from async_jobs.errors import InvalidJob
from async_jobs.models import BackoffPolicy, BackoffType

DEFAULT_BACKOFF = BackoffPolicy()
MAX_DELAY_SECONDS = 10 * 365 * 86_400.0
_KEYS = frozenset({"type", "base_delay_seconds", "max_delay_seconds", "jitter"})


def delay_after(policy: BackoffPolicy, attempt: int, *, random: float) -> float:
    """Seconds to wait after *attempt* (counted from 1); *random* is uniform in [0, 1)."""
    match policy.type:
        case BackoffType.CONSTANT:
            factor = 1.0
        case BackoffType.LINEAR:
            factor = float(attempt)
        case BackoffType.EXPONENTIAL:
            # 2 ** 64 base delays are beyond any cap; a larger power would overflow a float.
            factor = 2.0 ** min(attempt - 1, 64)
    delay = policy.base_delay_seconds * factor * (1.0 + policy.jitter * random)
    return min(delay, policy.max_delay_seconds)


def read_policy(raw: BackoffPolicy | Mapping[str, Any] | None) -> BackoffPolicy:
    """A policy from what the producer or the row says; raises InvalidJob naming the field."""
    if raw is None:
        return DEFAULT_BACKOFF
    if not isinstance(raw, BackoffPolicy):
        raw = _from_mapping(raw)
    elif (kind := _type(raw.type)) is not raw.type:
        raw = replace(raw, type=kind)
    _check_range("base_delay_seconds", raw.base_delay_seconds, MAX_DELAY_SECONDS)
    _check_range("max_delay_seconds", raw.max_delay_seconds, MAX_DELAY_SECONDS)
    _check_range("jitter", raw.jitter, 1.0)
    if raw.base_delay_seconds > raw.max_delay_seconds:
        raise _invalid("base_delay_seconds", "is more than max_delay_seconds")
    return raw


def _from_mapping(raw: Mapping[str, Any]) -> BackoffPolicy:
    if not isinstance(raw, Mapping):
        raise _invalid("", "must be an object with the keys " + ", ".join(sorted(_KEYS)))
    if unknown := set(raw) - _KEYS:
        raise _invalid("", f"has {len(unknown)} unknown keys; known: {', '.join(sorted(_KEYS))}")
    kind = _type(raw.get("type"))
    base = raw.get("base_delay_seconds", DEFAULT_BACKOFF.base_delay_seconds)
    _check_range("base_delay_seconds", base, MAX_DELAY_SECONDS)
    limit = raw.get("max_delay_seconds", max(DEFAULT_BACKOFF.max_delay_seconds, base))
    return BackoffPolicy(
        type=kind,
        base_delay_seconds=base,
        max_delay_seconds=limit,
        jitter=raw.get("jitter", DEFAULT_BACKOFF.jitter),
    )


def _type(value: object) -> BackoffType:
    if not isinstance(value, str) or value not in set(BackoffType):
        raise _invalid("type", "must be constant, linear or exponential")
    return BackoffType(value)


def _check_range(key: str, value: object, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:  # type: ignore[operator] # it is a number
        raise _invalid(key, f"must be a number from 0 to {most:g}")


def _invalid(key: str, reason: str) -> InvalidJob:
    field = f"backoff_policy.{key}" if key else "backoff_policy"
    return InvalidJob(field, "invalid_backoff_policy", reason)
