"""Whatever a handler raises or returns can be written on the row."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.record import (
    MAX_MESSAGE,
    MAX_RESULT_BYTES,
    MAX_TRACEBACK,
    error_record,
    plain_error,
    result_json,
    safe_text,
)

any_text = st.text(st.characters(), max_size=200)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raised(error: BaseException) -> BaseException:
    def fail() -> NoReturn:
        raise error

    try:
        fail()
    except BaseException as caught:
        return caught


@given(any_text, st.integers(10, 100))
def test_safe_text_is_storable_and_bounded(text: str, most: int) -> None:
    safe = safe_text(text, most)

    assert len(safe) <= most
    assert "\0" not in safe
    assert safe.encode().decode() == safe


def test_safe_text_keeps_both_ends_of_a_long_text() -> None:
    assert safe_text("a" * 50 + "b" * 50, 25) == "a" * 10 + " ... " + "b" * 10


def test_safe_text_leaves_a_short_text_alone() -> None:
    assert safe_text("Grüße 🙂", 20) == "Grüße 🙂"


def test_an_error_that_has_no_text_is_recorded_by_its_type() -> None:
    record = error_record(raised(Unprintable()), attempt=2)

    assert record["message"] == "<unprintable Unprintable: RuntimeError>"
    assert (record["type"], record["attempt"]) == ("Unprintable", 2)


@given(any_text)
def test_an_error_record_is_json_that_jsonb_can_hold(message: str) -> None:
    text = json.dumps(error_record(raised(ValueError(message)), attempt=1))

    assert "\\u0000" not in text
    assert json.loads(text)["attempt"] == 1
    json.loads(text)["message"].encode()


def test_a_huge_error_is_capped() -> None:
    record = error_record(raised(ValueError("x" * 10**6)), attempt=1)

    assert len(record["message"]) <= MAX_MESSAGE
    assert len(record["traceback"]) <= MAX_TRACEBACK
    assert len(json.dumps(record).encode()) <= 8 * 1024


def test_an_error_record_tells_where_it_was_raised() -> None:
    record = error_record(raised(KeyError("recipient")), attempt=1)

    assert "in fail" in record["traceback"]
    assert record["message"] == "'recipient'"


def test_a_plain_error_carries_no_traceback() -> None:
    assert plain_error("Cancelled", "by\0 hand", attempt=3) == {
        "type": "Cancelled",
        "message": "by\N{REPLACEMENT CHARACTER} hand",
        "attempt": 3,
    }


def recursive_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep_list(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        math.nan,
        {"a": -math.inf},
        "lone \ud800",
        "nul \0",
        {"nul \0": 1},
        "x" * (MAX_RESULT_BYTES + 1),
        10**5000,
        recursive_list(),
        deep_list(100_000),
        (n for n in range(3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_that_cannot_be_stored_is_replaced_by_a_note(value: object) -> None:
    noted = json.loads(result_json(value) or "")

    assert list(noted) == ["async_jobs_note"]
    assert len(noted["async_jobs_note"]) < 200


@pytest.mark.parametrize(
    "value",
    [
        "x" * (MAX_RESULT_BYTES + 1),
        ["x" * 1_000] * 70,
        {"a": ({"b": [0] * MAX_RESULT_BYTES},)},
        {"k" * 1_000 + str(number): None for number in range(70)},
    ],
    ids=["text", "texts", "deep", "keys"],
)
def test_a_large_result_is_not_written_to_find_out(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda each, **more: written.append(each) or dumps(each))

    noted = result_json(value) or ""

    assert "more than" in noted
    assert not any(each is value for each in written)


class Sly(dict[str, int]):
    """Raises what nobody catches when it is looked at."""

    def items(self) -> NoReturn:
        raise SystemExit(1)


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Changing(str):
    def replace(self, *given: object) -> NoReturn:
        raise LookupError


def test_a_result_that_raises_when_it_is_read_is_replaced_by_a_note() -> None:
    assert "SystemExit" in json.loads(result_json(Sly(a=1)) or "")["async_jobs_note"]


def test_an_error_that_raises_when_it_is_read_is_recorded_all_the_same() -> None:
    record = error_record(Mute(), attempt=1)

    assert record["type"] == "Mute"
    assert record["message"] == "<unprintable Mute: KeyboardInterrupt>"
    assert safe_text(Changing("text"), 10) == "text"


@pytest.mark.parametrize("value", [{"status": "sent"}, [1, 2.5, None, True], "text", 0, False, ""])
def test_a_result_that_is_json_is_stored_as_it_is(value: object) -> None:
    assert json.loads(result_json(value) or "") == value


def test_a_text_that_merely_spells_the_escape_of_nul_is_no_nul() -> None:
    value = {"pattern": "\\u0000"}

    assert json.loads(result_json(value) or "") == value


def test_no_result_is_no_json() -> None:
    assert result_json(None) is None
