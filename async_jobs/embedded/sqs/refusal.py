"""The errors SQS answers with, and how they look on the wire.

Every operation raises `Refused`; the server writes it out. A refusal has one
name in the service model (`__type`) and one in the older query protocol, which
clients still see as the error code (header `x-amzn-query-error`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_SERVICE = "com.amazonaws.sqs"
_FRAMEWORK = "com.amazon.coral.service"
_PREFIX = "AWS.SimpleQueueService."


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How one error is called in both protocols, and its HTTP status."""

    namespace: str
    query_code: str
    status: int


def _modelled(query_code: str, status: int = 400) -> ErrorShape:
    return ErrorShape(_SERVICE, query_code, status)


def _framework(query_code: str, status: int = 400) -> ErrorShape:
    return ErrorShape(_FRAMEWORK, query_code, status)


SHAPES = {
    "BatchEntryIdsNotDistinct": _modelled(_PREFIX + "BatchEntryIdsNotDistinct"),
    "BatchRequestTooLong": _modelled(_PREFIX + "BatchRequestTooLong"),
    "EmptyBatchRequest": _modelled(_PREFIX + "EmptyBatchRequest"),
    "InvalidAddress": _modelled("InvalidAddress", 404),
    "InvalidAttributeName": _modelled("InvalidAttributeName"),
    "InvalidAttributeValue": _modelled("InvalidAttributeValue"),
    "InvalidBatchEntryId": _modelled(_PREFIX + "InvalidBatchEntryId"),
    "InvalidMessageContents": _modelled("InvalidMessageContents"),
    "MessageNotInflight": _modelled(_PREFIX + "MessageNotInflight"),
    "OverLimit": _modelled("OverLimit", 403),
    "PurgeQueueInProgress": _modelled(_PREFIX + "PurgeQueueInProgress", 403),
    "QueueDeletedRecently": _modelled(_PREFIX + "QueueDeletedRecently"),
    "QueueDoesNotExist": _modelled(_PREFIX + "NonExistentQueue"),
    "QueueNameExists": _modelled("QueueAlreadyExists"),
    "ReceiptHandleIsInvalid": _modelled("ReceiptHandleIsInvalid", 404),
    "RequestThrottled": _modelled("RequestThrottled", 403),
    "ResourceNotFoundException": _modelled("ResourceNotFoundException", 404),
    "TooManyEntriesInBatchRequest": _modelled(_PREFIX + "TooManyEntriesInBatchRequest"),
    "UnsupportedOperation": _modelled(_PREFIX + "UnsupportedOperation"),
    "AccessDeniedException": _framework("AccessDenied", 403),
    "InternalFailure": _framework("InternalError", 500),
    "InvalidParameterValueException": _framework("InvalidParameterValue"),
    "MissingParameterException": _framework("MissingParameter"),
    "SerializationException": _framework("MalformedInput"),
    "ServiceUnavailable": _framework("ServiceUnavailable", 503),
    "ThrottlingException": _framework("ThrottlingException"),
    "UnknownOperationException": _framework("InvalidAction", 404),
}
"""Every error this server can answer with, by its name in the service model."""


class Refused(Exception):
    """SQS will not do this; *name* is a key of SHAPES."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.shape = SHAPES[name]
        super().__init__(f"{name}: {text}")

    @property
    def type_name(self) -> str:
        """What the JSON answer carries as `__type`."""
        return f"{self.shape.namespace}#{self.name}"

    @property
    def query_code(self) -> str:
        """What clients see as the error code, and batch entries as `Code`."""
        return self.shape.query_code

    @property
    def is_senders_fault(self) -> bool:
        return self.shape.status < 500


def invalid_value(parameter: str, reason: str) -> Refused:
    """A parameter has a value SQS does not take; the value itself is not repeated."""
    return Refused(
        "InvalidParameterValueException",
        f"The value for parameter {parameter} is invalid. Reason: {reason}",
    )


def missing(parameter: str) -> Refused:
    return Refused(
        "MissingParameterException", f"The request must contain the parameter {parameter}."
    )


def unknown_attribute(known: Iterable[str]) -> Refused:
    return Refused("InvalidAttributeName", f"Unknown attribute. Known: {', '.join(sorted(known))}.")
