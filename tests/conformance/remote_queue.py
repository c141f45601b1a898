"""A queue on whatever server is checked, as short calls; and what the checks say about answers."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

REGION = "us-east-1"
PATIENCE_SECONDS = 10.0

Message = dict[str, Any]


class RemoteQueue:
    """One queue, spoken to through a boto3 client."""

    def __init__(self, sqs: Any, url: str) -> None:
        self.sqs = sqs
        self.url = url
        self.name = url.rpartition("/")[2]

    @property
    def arn(self) -> str:
        return self.attributes("QueueArn")["QueueArn"]

    def send(self, body: str = "hello", **more: Any) -> dict[str, Any]:
        return self.sqs.send_message(QueueUrl=self.url, MessageBody=body, **more)

    def send_many(self, bodies: Sequence[str], **more: Any) -> None:
        for at in range(0, len(bodies), 10):
            self.send_batch(
                [
                    {"Id": str(n), "MessageBody": b, **more}
                    for n, b in enumerate(bodies[at : at + 10])
                ]
            )

    def send_batch(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)

    def receive(self, most: int = 10, wait: int = 0, **more: Any) -> list[Message]:
        answer = self.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=most, WaitTimeSeconds=wait, **more
        )
        return answer.get("Messages", [])

    def take(self, **more: Any) -> Message:
        """Receive one message, waiting for it."""
        (message,) = self.receive(most=1, wait=5, **more)
        return message

    def delete(self, message: Message) -> None:
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])

    def hide(self, message: Message, seconds: int) -> None:
        self.sqs.change_message_visibility(
            QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=seconds
        )

    def attributes(self, *names: str) -> dict[str, str]:
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names or ["All"])
        return answer.get("Attributes", {})

    def counts(self) -> tuple[int, int, int]:
        """Visible, in flight, delayed."""
        told = self.attributes()
        names = ("", "NotVisible", "Delayed")
        visible, in_flight, delayed = (
            int(told[f"ApproximateNumberOfMessages{name}"]) for name in names
        )
        return visible, in_flight, delayed

    def until_visible(self, count: int) -> None:
        """Wait, without receiving, until *count* messages are visible."""
        until(lambda: self.counts()[0] == count)


def bodies(messages: Sequence[Message]) -> list[str]:
    return [message["Body"] for message in messages]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.02)


@contextmanager
def refused(*codes: str) -> Iterator[None]:
    """The block ends in an error with one of these codes."""
    with pytest.raises(ClientError) as caught:
        yield

    assert caught.value.response["Error"]["Code"] in codes


def raw_request(endpoint_url: str, operation: str, **params: Any) -> bytes:
    """A signed request as bytes, for checks that look at the wire."""
    request = AWSRequest(
        "POST",
        f"{endpoint_url}/",
        data=json.dumps(params).encode(),
        headers={
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{operation}",
        },
    )
    SigV4Auth(Credentials("key", "secret"), "sqs", REGION).add_auth(request)
    prepared = request.prepare()
    lines = ["POST / HTTP/1.1", f"Host: {urlsplit(endpoint_url).netloc}"]
    lines += [f"{name}: {_text(value)}" for name, value in prepared.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + prepared.body


def raw_connection(endpoint_url: str) -> socket.socket:
    parts = urlsplit(endpoint_url)
    return socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_SECONDS)


def new_name(suffix: str = "") -> str:
    return f"check-{uuid.uuid4().hex}{suffix}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
