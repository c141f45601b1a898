"""A message, its digests, its size and its receipt handles.

The queue model makes and moves messages; this file knows what one message is and
what SQS accepts as one. Nothing here knows about queues, time or connections.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypedDict

from async_jobs.embedded.sqs.refusal import Refused, invalid_value

MAX_MESSAGE_BYTES = 1_048_576
MAX_ATTRIBUTES = 10

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTE_NAME = re.compile(r"(?!(?i:aws\.|amazon\.))(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_DATA_TYPE = re.compile(r"(String|Number|Binary)(\.[A-Za-z0-9_.-]+)?")


class Attribute(TypedDict, total=False):
    """A message attribute as the JSON protocol writes it; BinaryValue is base64."""

    DataType: str
    StringValue: str
    BinaryValue: str


class State(IntEnum):
    """Where a message is; OUTSIDE is in no queue, not yet or no more."""

    OUTSIDE = 0
    DELAYED = 1
    VISIBLE = 2
    IN_FLIGHT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message as its sender wrote it, checked and measured."""

    body: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    trace_header: str | None = None
    group_id: str | None = None
    deduplication_id: str | None = None
    delay_seconds: int | None = None
    size_bytes: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Message:
    """One copy of a message in one queue.

    *key* orders the copies of a queue and is never used twice; *message_id* is
    what the sender was told and may be shared by two copies of one message.
    *due_at* is when a delayed or in-flight message becomes visible, and *alarm* the
    number of the entry among the queue's times that says so.
    """

    key: int
    message_id: str
    draft: Draft
    md5_of_body: str
    sent_at: float
    sequence_number: str | None = None
    source_arn: str | None = None
    state: State = State.OUTSIDE
    due_at: float = 0.0
    alarm: int = -1
    first_received_at: float | None = None
    latest_received_at: float = 0.0
    receive_count: int = 0


def md5_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Mapping[str, Attribute]) -> str:
    """The digest SDKs check: sorted names, each part with its length before it."""
    digest = hashlib.md5(usedforsecurity=False)
    for name, attribute in sorted(attributes.items()):
        data_type = attribute["DataType"]
        is_binary = data_type.startswith("Binary")
        for part in (name.encode(), data_type.encode()):
            digest.update(struct.pack("!I", len(part)) + part)
        value = _value_of(attribute)
        digest.update(struct.pack("!BI", 2 if is_binary else 1, len(value)) + value)
    return digest.hexdigest()


def check_text(text: str) -> None:
    """Raise InvalidMessageContents if *text* is empty or has a character SQS refuses."""
    if not text:
        raise Refused("InvalidMessageContents", "The message must be at least one character long.")
    if not text.isascii() or not text.isprintable():
        _check_characters(text)


def _check_characters(text: str) -> None:
    if _ILLEGAL.search(text):
        raise Refused(
            "InvalidMessageContents",
            "The message holds a character outside the allowed set: #x9 | #xA | #xD | "
            "#x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.",
        )


def check_attributes(attributes: Mapping[str, Attribute]) -> None:
    """Raise InvalidParameterValue for a name, type or value SQS does not take."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise invalid_value("MessageAttributes", "A message has at most 10 message attributes.")
    for name, attribute in attributes.items():
        if not _ATTRIBUTE_NAME.fullmatch(name):
            raise invalid_value(
                "MessageAttributes",
                "A name has 1 to 256 letters, digits, '_', '-' or '.', no '.' at an end or twice "
                "in a row, and does not start with 'AWS.' or 'Amazon.'.",
            )
        _check_attribute(attribute)


def _check_attribute(attribute: Attribute) -> None:
    data_type = attribute.get("DataType", "")
    kind = _DATA_TYPE.fullmatch(data_type)
    if not kind or len(data_type) > 256:
        raise invalid_value(
            "MessageAttributes",
            "A data type is String, Number or Binary, then '.label' or nothing.",
        )
    wanted = "BinaryValue" if kind[1] == "Binary" else "StringValue"
    if not attribute.get(wanted):
        raise invalid_value("MessageAttributes", f"An attribute of this type has a {wanted}.")
    if wanted == "StringValue":
        _check_characters(attribute["StringValue"])
    else:
        _value_of(attribute)
    if kind[1] == "Number" and not _is_number(attribute["StringValue"]):
        raise invalid_value("MessageAttributes", "The value of a Number attribute is a number.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _value_of(attribute: Attribute) -> bytes:
    if not attribute["DataType"].startswith("Binary"):
        return attribute["StringValue"].encode()
    try:
        return base64.b64decode(attribute["BinaryValue"], validate=True)
    except (binascii.Error, ValueError):
        raise invalid_value("MessageAttributes", "A BinaryValue is base64.") from None


def size_of(body: str, attributes: Mapping[str, Attribute]) -> int:
    """What counts against the size limit: the body and every attribute's name, type and value."""
    size = len(body) if body.isascii() else len(body.encode())
    for name, attribute in attributes.items():
        size += len(name) + len(attribute.get("DataType", ""))
        size += len(attribute.get("StringValue", "").encode())
        size += len(attribute.get("BinaryValue", "")) * 3 // 4
    return size


def select_attributes(
    attributes: Mapping[str, Attribute], wanted: Sequence[str]
) -> dict[str, Attribute]:
    """The attributes a receiver asked for: by name, by prefix (`name.*`), or `All`."""
    if "All" in wanted or ".*" in wanted:
        return dict(attributes)
    prefixes = tuple(name[:-2] for name in wanted if name.endswith(".*"))
    return {
        name: value
        for name, value in attributes.items()
        if name in wanted or (prefixes and name.startswith(prefixes))
    }


def write_handle(token: str, key: int, receive_count: int) -> str:
    """A receipt handle: which queue, which copy, which receive."""
    return base64.urlsafe_b64encode(f"{token}:{key}:{receive_count}".encode()).decode()


def read_handle(handle: str, token: str) -> tuple[int, int]:
    """Copy and receive behind *handle*; ReceiptHandleIsInvalid if not of the queue of *token*."""
    try:
        text = base64.b64decode(handle.encode("ascii"), altchars=b"-_", validate=True).decode()
        found, key, receive_count = text.split(":")
        place = int(key), int(receive_count)
    except ValueError:
        found = ""
    if found != token:
        raise Refused(
            "ReceiptHandleIsInvalid", "The receipt handle is not one that this queue has given out."
        )
    return place
