"""The attributes of a queue: which exist, their defaults, and what they may be.

`QueueSettings` is what the queue model reads; texts on the wire are checked and
turned into it here, and back. A value that SQS would refuse is refused with the
error SQS names for it. Attributes about policies and encryption are kept and
given back, and have no effect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from async_jobs.embedded.sqs.message import MAX_MESSAGE_BYTES
from async_jobs.embedded.sqs.refusal import Refused, invalid_value, unknown_attribute

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|(?=.{1,80}\Z)[A-Za-z0-9_-]+\.fifo")

_NUMBERS = {
    "DelaySeconds": (0, 900),
    "MaximumMessageSize": (1024, MAX_MESSAGE_BYTES),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
}
_CHOICES = {
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
    "SqsManagedSseEnabled": ("true", "false"),
}
_FIFO_ONLY = ("ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit")
_DOCUMENTS = ("Policy", "RedrivePolicy", "RedriveAllowPolicy")
_PERMISSIONS = ("allowAll", "denyAll", "byQueue")
SETTABLE = {*_NUMBERS, *_CHOICES, *_DOCUMENTS, "KmsMasterKeyId"}
"""Attributes that SetQueueAttributes takes; CreateQueue takes FifoQueue too."""

_DEFAULTS = {
    "DelaySeconds": "0",
    "MaximumMessageSize": str(MAX_MESSAGE_BYTES),
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "VisibilityTimeout": "30",
    "SqsManagedSseEnabled": "true",
}
_FIFO_DEFAULTS = {
    "FifoQueue": "true",
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "FifoThroughputLimit": "perQueue",
}


@dataclass(frozen=True, slots=True)
class Redrive:
    """After how many receives a message goes to which queue."""

    target_arn: str
    max_receive_count: int


class QueueSettings:
    """The attributes of one queue that can be set, as texts and as what they mean."""

    def __init__(self, name: str, attributes: Mapping[str, str]) -> None:
        """Take the attributes of CreateQueue; raises Refused for a bad name or attribute."""
        _check_name(name, is_fifo=attributes.get("FifoQueue") == "true")
        self.is_fifo = name.endswith(".fifo")
        given = {key: text for key, text in attributes.items() if key != "FifoQueue"}
        self._check(given)
        if "FifoQueue" in attributes and not self.is_fifo:
            raise Refused("InvalidAttributeName", "FifoQueue is set on FIFO queues only, as true.")
        self._texts = {**_DEFAULTS, **(_FIFO_DEFAULTS if self.is_fifo else {})}
        self._take_in(given)

    def change(self, attributes: Mapping[str, str]) -> None:
        """Take the attributes of SetQueueAttributes, all or none."""
        self._check(attributes)
        self._take_in(attributes)

    def texts(self) -> dict[str, str]:
        """Every attribute that has a value, as the wire has it."""
        return dict(self._texts)

    def differs_in(self, attributes: Mapping[str, str]) -> str | None:
        """The name of an attribute given here whose value is another one, or None."""
        for name, text in attributes.items():
            if self._texts.get(name, "") != _canonical(name, text):
                return name
        return None

    def allows_source(self, source_arn: str) -> bool:
        """Whether RedriveAllowPolicy lets *source_arn* use this queue for dead letters."""
        policy = _document("RedriveAllowPolicy", self._texts.get("RedriveAllowPolicy", "{}"))
        sources = policy.get("sourceQueueArns")
        if policy.get("redrivePermission", "allowAll") == "byQueue":
            return isinstance(sources, list) and source_arn in sources
        return policy.get("redrivePermission", "allowAll") == "allowAll"

    def _check(self, attributes: Mapping[str, str]) -> None:
        for name, text in attributes.items():
            if name not in SETTABLE or (name in _FIFO_ONLY and not self.is_fifo):
                raise unknown_attribute(
                    SETTABLE if self.is_fifo else SETTABLE.difference(_FIFO_ONLY)
                )
            _check_value(name, text)

    def _take_in(self, attributes: Mapping[str, str]) -> None:
        for name, text in attributes.items():
            self._texts[name] = _canonical(name, text)
            if not text:
                del self._texts[name]
        if "KmsMasterKeyId" in self._texts and "SqsManagedSseEnabled" not in attributes:
            self._texts["SqsManagedSseEnabled"] = "false"
        self._read()

    def _read(self) -> None:
        texts = self._texts
        self.delay_seconds = int(texts["DelaySeconds"])
        self.max_message_bytes = int(texts["MaximumMessageSize"])
        self.retention_seconds = int(texts["MessageRetentionPeriod"])
        self.wait_seconds = int(texts["ReceiveMessageWaitTimeSeconds"])
        self.visibility_seconds = int(texts["VisibilityTimeout"])
        self.deduplicates_by_content = texts.get("ContentBasedDeduplication") == "true"
        self.deduplicates_by_group = texts.get("DeduplicationScope") == "messageGroup"
        self.redrive = read_redrive(texts["RedrivePolicy"]) if "RedrivePolicy" in texts else None


def read_redrive(text: str) -> Redrive:
    """What a RedrivePolicy says; InvalidParameterValue if it says nothing usable."""
    policy = _document("RedrivePolicy", text)
    arn = policy.get("deadLetterTargetArn")
    if not isinstance(arn, str) or not arn.startswith("arn:"):
        raise invalid_value("RedrivePolicy", "Invalid value for deadLetterTargetArn.")
    count = str(policy.get("maxReceiveCount", ""))
    if not count.isdecimal() or not 1 <= int(count) <= 1000:
        raise invalid_value("RedrivePolicy", "maxReceiveCount is a number from 1 to 1000.")
    return Redrive(arn, int(count))


def _check_name(name: str, *, is_fifo: bool) -> None:
    if not _NAME.fullmatch(name) or name.endswith(".fifo") != is_fifo:
        raise invalid_value(
            "QueueName",
            "A name has 1 to 80 letters, digits, hyphens or underscores. A FIFO queue's name ends "
            "in .fifo and its attribute FifoQueue is true; no other queue has either.",
        )


def _check_value(name: str, text: str) -> None:
    if not text and name in (*_DOCUMENTS, "KmsMasterKeyId"):
        return
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
            raise _bad_value(name, f"It is a whole number from {low} to {high}.")
    elif name in _CHOICES and text not in _CHOICES[name]:
        raise _bad_value(name, f"It is one of {', '.join(_CHOICES[name])}.")
    elif name == "RedrivePolicy":
        read_redrive(text)
    elif name == "RedriveAllowPolicy":
        if _document(name, text).get("redrivePermission", "allowAll") not in _PERMISSIONS:
            raise invalid_value(name, f"redrivePermission is one of {', '.join(_PERMISSIONS)}.")
    elif name == "Policy":
        _document(name, text)


def _bad_value(name: str, reason: str) -> Refused:
    return Refused("InvalidAttributeValue", f"Invalid value for the attribute {name}. {reason}")


def _document(name: str, text: str) -> dict[str, object]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise invalid_value(name, "It is not a JSON object.")
    return document


def _canonical(name: str, text: str) -> str:
    if text and name in _NUMBERS:
        return str(int(text))
    if text and name in _DOCUMENTS:
        return json.dumps(json.loads(text), separators=(",", ":"))
    return text
