"""Whether a job can be accepted: one check, used by the service, the API and the client.

Pure. A refusal is an InvalidJob that names the field and a code, says what is
needed, and never repeats the value. The limits come from what PostgreSQL and
other languages can hold (jsonb has no NUL, no lone surrogates, no NaN) and from
what keeps a queue healthy (payloads are references, not files).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from uuid import UUID

from async_jobs.core.backoff import read_policy
from async_jobs.errors import InvalidJob
from async_jobs.models import AcceptedJob, NewJob

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_DEPTH = 100
MAX_ATTEMPTS = 1_000
MAX_PRIORITY = 32_767
TEN_YEARS_SECONDS = 10 * 366 * 86_400.0
LEAST_TIMEOUT_SECONDS = 0.001
MOST_TIMEOUT_SECONDS = 30 * 86_400.0
EARLIEST_RUN_AT = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_DEADLINE_AT = datetime(9000, 1, 1, tzinfo=UTC)

NAME_PATTERN = r"[A-Za-z0-9._:@/-]{1,128}"

_NAME = re.compile(NAME_PATTERN)
_long_numbers = re.compile(r"\d{19,}").findall
"""What integers beyond 64 bits look like; others may."""
_LONGEST_PLAIN_NUMBER = str(2**63 - 1)
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
_BETWEEN = _encode(["", "\0", ""])[3:-3]
"""What stands between texts that are encoded at once: no payload may hold it."""
_NO_IDS = (0, (1 << 128) - 1)
_INT64 = range(-(2**63), 2**63)


def accept(
    new: NewJob,
    *,
    job_id: UUID,
    queue: str,
    default_tolerance_seconds: float,
    now: datetime,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> AcceptedJob:
    """The job as the store may write it; raises InvalidJob for the first field that cannot be.

    *job_id* is its id if its caller chose none.
    """
    tolerance = new.delay_tolerance_seconds
    return AcceptedJob(
        id=job_id if new.job_id is None else _job_id(new.job_id),
        has_chosen_id=new.job_id is not None,
        tenant_id=_name("tenant_id", new.tenant_id),
        use_case=_name("use_case", new.use_case),
        type=_name("type", new.type),
        queue=queue,
        payload_json=encode_payload(new.payload, max_payload_bytes),
        run_at=_run_at(new.run_at, now),
        delay_tolerance_seconds=(
            default_tolerance_seconds if tolerance is None else _tolerance(tolerance)
        ),
        max_attempts=_integer("max_attempts", new.max_attempts, 1, MAX_ATTEMPTS),
        backoff_json=_backoff(new),
        dedupe_key=None if new.dedupe_key is None else _dedupe_key(new.dedupe_key),
        priority=_integer("priority", new.priority, -MAX_PRIORITY, MAX_PRIORITY),
        latest_deadline_at=_latest_deadline_at(new, now),
        reject_if_infeasible=_boolean("reject_if_infeasible", new.reject_if_infeasible),
        timeout_seconds=None if new.timeout_seconds is None else _timeout(new.timeout_seconds),
    )


def is_alike(new: NewJob, before: NewJob) -> bool:
    """Whether *new* is the very same as *before* but for its payload and its dedupe_key.

    By identity: equal is not enough where True equals 1. Texts and seconds may also be equal ones
    of the same type, which a parser makes anew for each job.
    """
    return (
        (new.tenant_id is before.tenant_id or _equal(new.tenant_id, before.tenant_id))
        and (new.use_case is before.use_case or _equal(new.use_case, before.use_case))
        and (new.type is before.type or _equal(new.type, before.type))
        and new.job_id is before.job_id is None
        and (new.queue is before.queue or _equal(new.queue, before.queue))
        and new.run_at is before.run_at
        and (
            new.delay_tolerance_seconds is before.delay_tolerance_seconds
            or _equal(new.delay_tolerance_seconds, before.delay_tolerance_seconds)
        )
        and new.max_attempts is before.max_attempts
        and new.backoff_policy is before.backoff_policy
        and new.priority is before.priority
        and new.parent_deadline_at is before.parent_deadline_at
        and new.reject_if_infeasible is before.reject_if_infeasible
        and new.timeout_seconds is before.timeout_seconds
    )


def _equal(one: object, other: object) -> bool:
    kind = type(one)
    # 0.0 equals -0.0.
    return kind is type(other) and one == other and (kind is str or (kind is float and one != 0.0))


def accept_alike(
    new: Sequence[NewJob], before: AcceptedJob, *, ids: Sequence[UUID], max_payload_bytes: int
) -> list[AcceptedJob]:
    """The same as `accept`, for jobs that are `is_alike` to the one that *before* was made from.

    The `index` of an InvalidJob is a place in *new*.
    """
    texts = _texts_at_once([one.payload for one in new], max_payload_bytes)
    keys: Sequence[str | None] = [one.dedupe_key for one in new]
    if texts is None or keys.count(None) < len(keys):
        texts, keys = _one_by_one(new, texts, max_payload_bytes)
    alike = map(repeat, before[3:])
    return list(map(AcceptedJob._make, zip(ids, texts, keys, *alike, strict=False)))


def _one_by_one(
    new: Sequence[NewJob], texts: Sequence[str] | None, max_bytes: int
) -> tuple[list[str], list[str | None]]:
    """Payloads, as far as they are no *texts* yet, and dedupe keys; raises for the first job."""
    encoded, keys = [], []
    for index, one in enumerate(new):
        try:
            encoded.append(texts[index] if texts else encode_payload(one.payload, max_bytes))
            keys.append(None if one.dedupe_key is None else _dedupe_key(one.dedupe_key))
        except InvalidJob as error:
            error.index = index
            raise
    return encoded, keys


def _texts_at_once(payloads: Sequence[object], max_bytes: int) -> list[str] | None:
    """The payloads as `encode_payload` gives them, looked at together; None if one is doubtful."""
    if set(map(type, payloads)) - {dict}:
        return None
    try:
        whole = _encode(list(chain.from_iterable(zip(payloads, repeat("\0"), strict=False))))
        texts = whole[1 : 1 - len(_BETWEEN)].split(_BETWEEN)
        whole.encode()
    except (ValueError, TypeError, RecursionError):
        return None
    longest = max(map(len, texts))
    # A character is at most 4 bytes, and who is short is not deep.
    is_small = 4 * longest <= max_bytes and longest <= 2 * MAX_DEPTH
    are_plain = len(texts) == len(payloads) and is_small and _is_plain("".join(texts))
    return texts if are_plain else None


def encode_payload(payload: object, max_bytes: int = MAX_PAYLOAD_BYTES) -> str:
    """The payload as JSON text that PostgreSQL's jsonb and any reader can hold."""
    if type(payload) is not dict:
        if not isinstance(payload, Mapping):
            raise InvalidJob("payload", "not_an_object", "must be a JSON object")
        payload = dict(payload)
    try:
        text = _encode(payload)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidJob("payload", "invalid_unicode", "holds a lone surrogate") from None
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, TypeError) as error:
        raise _not_json(payload, error) from None
    if size > max_bytes:
        raise InvalidJob(
            "payload",
            "too_large",
            f"is larger than {max_bytes} bytes; store the data elsewhere and send a reference",
        )
    _check_contents(payload, text)
    return text


def _check_contents(payload: object, text: str) -> None:
    """Walk the payload only where its text says that something may be wrong."""
    opened = len(text) > 2 * MAX_DEPTH and text.count("{") + text.count("[")
    if opened > MAX_DEPTH and _deeper_than(payload, MAX_DEPTH):
        raise _too_deep()
    if _is_plain(text):
        return
    if any("\0" in part for part in _strings(payload)):
        raise InvalidJob("payload", "nul_character", "holds a NUL character (U+0000)")
    if any(number not in _INT64 for number in _integers(payload)):
        raise _number_too_large()


def _is_plain(text: str) -> bool:
    """Whether *text* needs no look at the value: nothing in it may be beyond PostgreSQL."""
    return "\\u0000" not in text and not any(
        len(number) > len(_LONGEST_PLAIN_NUMBER) or number > _LONGEST_PLAIN_NUMBER
        for number in _long_numbers(text)
    )


def _leaves(value: object) -> list[object]:
    found: list[object] = []
    open_values: list[object] = [value]
    seen: set[int] = set()
    while open_values:
        item = open_values.pop()
        if id(item) in seen:
            continue
        if isinstance(item, Mapping | list | tuple):
            # A value may contain itself.
            seen.add(id(item))
        if isinstance(item, Mapping):
            open_values.extend(item.keys())
            open_values.extend(item.values())
        elif isinstance(item, list | tuple):
            open_values.extend(item)
        else:
            found.append(item)
    return found


def _strings(value: object) -> list[str]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, str)]


def _integers(value: object) -> list[int]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, int)]


def _deeper_than(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [child for child in value.values() if isinstance(child, Mapping | list | tuple)]
    if isinstance(value, list | tuple):
        return [child for child in value if isinstance(child, Mapping | list | tuple)]
    return []


def _too_deep() -> InvalidJob:
    return InvalidJob("payload", "too_deep", f"is nested deeper than {MAX_DEPTH} levels")


def _number_too_large() -> InvalidJob:
    return InvalidJob("payload", "number_too_large", "holds an integer beyond 64 bits")


def _is_non_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _not_json(payload: object, error: Exception) -> InvalidJob:
    if "Circular" in str(error):
        return InvalidJob("payload", "circular", "refers to itself")
    if any(_is_non_finite(leaf) for leaf in _leaves(payload)):
        return InvalidJob("payload", "non_finite_number", "holds NaN or an infinity")
    if any(number not in _INT64 for number in _integers(payload)):
        return _number_too_large()
    return InvalidJob(
        "payload",
        "not_json",
        "holds something that is not JSON; use objects, lists, texts, numbers, booleans, null",
    )


def _name(field: str, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidJob(
            field, "invalid_name", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ / -"
        )
    return value


def _job_id(value: object) -> UUID:
    if not isinstance(value, UUID) or value.int in _NO_IDS:
        raise InvalidJob("job_id", "invalid_uuid", "must be a UUID, and neither all 0 nor all f")
    return value


def _dedupe_key(value: object) -> str:
    fits = isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable()
    if not fits or not value.strip():  # type: ignore[attr-defined] # it is a text
        raise InvalidJob(
            "dedupe_key", "invalid_name", "must be 1 to 200 printable characters, not all blank"
        )
    return str(value)


def _run_at(value: object, now: datetime) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidJob("run_at", "invalid_type", "must be a datetime")
    if value.utcoffset() is None:
        raise InvalidJob("run_at", "naive_datetime", "needs a time zone, for example a final Z")
    if not EARLIEST_RUN_AT <= value <= now + timedelta(seconds=TEN_YEARS_SECONDS):
        raise InvalidJob("run_at", "out_of_range", "must lie from 1970 to ten years ahead")
    # PostgreSQL knows no offsets of 16 hours or more.
    return value.astimezone(UTC)


def _latest_deadline_at(new: NewJob, now: datetime) -> datetime | None:
    """The parent's deadline, unless the job is to run only after it."""
    parent = new.parent_deadline_at
    if parent is None:
        return None
    if not isinstance(parent, datetime) or parent.utcoffset() is None:
        raise InvalidJob(
            "parent_deadline_at", "invalid_type", "must be a datetime with a time zone"
        )
    if new.run_at is not None and new.run_at > max(parent, now):
        return None
    return min(max(parent, EARLIEST_RUN_AT), _LATEST_DEADLINE_AT).astimezone(UTC)


def _tolerance(value: object) -> float:
    return _seconds(
        "delay_tolerance_seconds", value, 0.0, TEN_YEARS_SECONDS, "must be 0 s to 10 years"
    )


def _timeout(value: object) -> float:
    least, most = LEAST_TIMEOUT_SECONDS, MOST_TIMEOUT_SECONDS
    return _seconds("timeout_seconds", value, least, most, "must be 0.001 s to 30 days")


def _seconds(field: str, value: object, least: float, most: float, needed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_non_finite(value):
        raise InvalidJob(field, "invalid_type", "must be a number of seconds")
    if not least <= value <= most:
        raise InvalidJob(field, "out_of_range", needed)
    return float(value)


def _integer(field: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidJob(field, "out_of_range", f"must be a whole number from {least} to {most}")
    return value


def _boolean(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidJob(field, "invalid_type", "must be true or false")
    return value


def _backoff(new: NewJob) -> str | None:
    """None stays None: the row then follows the library's default policy."""
    if new.backoff_policy is None:
        return None
    return json.dumps(read_policy(new.backoff_policy).to_json())
