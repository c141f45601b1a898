"""Asks a queue what a check-up needs to know, without sending, taking or hiding a message.

Whether a process may send, receive or delete is asked with requests that SQS refuses for what is
in them: a batch of no entries, a receive of no messages. A process without the right is refused for
that instead, with AccessDenied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from async_jobs.core.queue_checkup import DENIED, QueueSeen
from async_jobs.errors import TransportError
from async_jobs.transport.sqs import SqsClient

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient


async def examine_queue(client: SqsClient, queue_url: str, *, use_case: str) -> QueueSeen:
    """What the queue at *queue_url* answers; never raises for what a queue may do."""
    problem, attributes = "", {}
    names: Any = ["All"]
    try:
        answer = await client.call(
            lambda sqs: sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
        )
        attributes = {str(name): text for name, text in answer.get("Attributes", {}).items()}
    except TransportError as error:
        problem = error.reason
    refused = []
    if not problem or DENIED in problem:
        for action, ask in _questions(queue_url).items():
            if await _is_denied(client, ask):
                refused.append(action)
    return QueueSeen(use_case=use_case, problem=problem, attributes=attributes, refused=refused)


def _questions(queue_url: str) -> Mapping[str, Callable[[SQSClient], object]]:
    nothing: Any = []
    return {
        "send": lambda sqs: sqs.send_message_batch(QueueUrl=queue_url, Entries=nothing),
        "receive": lambda sqs: sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=0, VisibilityTimeout=0, WaitTimeSeconds=0
        ),
        "delete": lambda sqs: sqs.delete_message_batch(QueueUrl=queue_url, Entries=nothing),
    }


async def _is_denied(client: SqsClient, ask: Callable[[SQSClient], object]) -> bool:
    try:
        await client.call(ask)
    except TransportError as error:
        return DENIED in error.reason
    return False
