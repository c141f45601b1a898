"""The parameters of one request, read with their types and limits.

Operations read every parameter through this; what is missing or of the wrong
type or size is refused with the error SQS has for it, never echoing the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from async_jobs.embedded.sqs.message import Attribute
from async_jobs.embedded.sqs.refusal import Refused, invalid_value, missing


class Params:
    """The JSON object of a request, or of one entry of a batch."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """A text that must be there; raises MissingParameter."""
        value = self.optional_text(name)
        if value is None:
            raise missing(name)
        return value

    def optional_text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise _wrong_type(name, "a string")

    def number(self, name: str, low: int, high: int) -> int | None:
        """A whole number from *low* to *high*, or None; raises InvalidParameterValue."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(name, "a whole number")
        if not low <= value <= high:
            raise invalid_value(name, f"It must be between {low} and {high}, if given.")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty if it is not there."""
        value = self._values.get(name) or []
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return value
        raise _wrong_type(name, "a list of strings")

    def text_map(self, name: str) -> dict[str, str]:
        """A mapping of texts; empty if it is not there."""
        value = self._values.get(name) or {}
        if isinstance(value, dict) and all(isinstance(each, str) for each in value.values()):
            return value
        raise _wrong_type(name, "a map of strings")

    def attributes(self, name: str) -> dict[str, Attribute]:
        """A mapping of message attributes, not yet checked; empty if it is not there."""
        value = self._values.get(name)
        if not value:
            return {}
        if not isinstance(value, dict):
            raise _wrong_type(name, "a map of attributes")
        return {key: _attribute(name, each) for key, each in value.items()}

    def entries(self, name: str) -> list[Params]:
        """The entries of a batch; empty if it is not there."""
        value = self._values.get(name) or []
        if isinstance(value, list) and all(isinstance(each, dict) for each in value):
            return [Params(each) for each in value]
        raise _wrong_type(name, "a list of entries")


def _attribute(name: str, value: object) -> Attribute:
    if not isinstance(value, dict):
        raise _wrong_type(name, "a map of attributes")
    kept = {key: text for key, text in value.items() if key in Attribute.__annotations__}
    if not all(isinstance(text, str) for text in kept.values()):
        raise _wrong_type(name, "a map of attributes with string values")
    return cast(Attribute, kept)


def _wrong_type(name: str, wanted: str) -> Refused:
    return Refused("SerializationException", f"The parameter {name} is not {wanted}.")
