"""What a check-up asks of a queue, what it makes of the answers, and that it does no harm."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from async_jobs.core.queue_checkup import QueueSeen, queue_findings
from async_jobs.embedded.sqs.faults import Fault, Kind
from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.transport.queue_checkup import examine_queue
from async_jobs.transport.sqs import SqsClient

WELL = {
    "ApproximateNumberOfMessages": "3",
    "MessageRetentionPeriod": "86400",
    "DelaySeconds": "0",
    "VisibilityTimeout": "30",
}


@pytest.fixture
def faulty(sqs_server: SqsServer) -> Iterator[SqsServer]:
    yield sqs_server
    sqs_server.faults.replace([], 1)


def allow(server: SqsServer, *operations: str) -> None:
    server.faults.replace([Fault(kind=Kind.ACCESS_DENIED, allow=operations)], 1)


def a_queue(server: SqsServer, **attributes: Any) -> str:
    return server.create_queue(f"q-{uuid.uuid4().hex[:8]}", **attributes)


def bad(seen: QueueSeen) -> dict[str, str]:
    """What is not well, and what to do."""
    found = queue_findings(seen, dispatch_lease_seconds=60.0, visibility_seconds=300.0)
    return {each.name: each.remedy for each in found if not each.is_well}


def seen(**changes: Any) -> QueueSeen:
    healthy = {"use_case": "mail", "problem": "", "attributes": WELL, "refused": []}
    return QueueSeen(**{**healthy, **changes})


async def test_a_queue_that_is_there_is_well_and_keeps_its_messages(
    sqs_server: SqsServer, sqs_client: SqsClient
) -> None:
    url = a_queue(sqs_server, VisibilityTimeout=0)
    await sqs_client.call(lambda sqs: sqs.send_message(QueueUrl=url, MessageBody="ticket"))

    found = await examine_queue(sqs_client, url, use_case="mail")

    assert (bad(found), found.refused) == ({}, [])
    assert found.attributes["ApproximateNumberOfMessages"] == "1"
    names: Any = ["ApproximateReceiveCount"]
    answer = await sqs_client.call(
        lambda sqs: sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=names)
    )
    [message] = answer["Messages"]
    assert message["Attributes"] == {"ApproximateReceiveCount": "1"}


async def test_a_queue_that_is_not_there_is_told(
    sqs_server: SqsServer, sqs_client: SqsClient
) -> None:
    url = f"{a_queue(sqs_server)}-gone"

    found = await examine_queue(sqs_client, url, use_case="mail")

    assert list(bad(found)) == ["queue of mail"]
    assert bad(found)["queue of mail"] == "create the queue, or correct ASYNC_JOBS_SQS_QUEUE_MAIL"


@pytest.mark.parametrize(
    ("allowed", "refused", "ill"),
    [
        (("SendMessageBatch", "GetQueueAttributes"), ["receive", "delete"], []),
        (("ReceiveMessage", "DeleteMessageBatch"), ["send"], []),
        (("ReceiveMessage",), ["send", "delete"], ["queue of mail", "rights of mail"]),
        (("GetQueueAttributes",), ["send", "receive", "delete"], ["rights of mail"]),
        (("GetQueueAttributes", "ReceiveMessage"), ["send", "delete"], ["rights of mail"]),
    ],
)
async def test_what_a_process_may_do_is_seen(
    faulty: SqsServer,
    sqs_client: SqsClient,
    allowed: tuple[str, ...],
    refused: list[str],
    ill: list[str],
) -> None:
    url = a_queue(faulty)
    allow(faulty, *allowed)

    found = await examine_queue(sqs_client, url, use_case="mail")

    assert (found.refused, list(bad(found))) == (refused, ill)


@pytest.mark.parametrize(
    ("attributes", "remedy"),
    [
        ({"DelaySeconds": "5"}, "DelaySeconds"),
        ({"MessageRetentionPeriod": "59"}, "MessageRetentionPeriod"),
        ({"RedrivePolicy": json.dumps({"maxReceiveCount": 9})}, "maxReceiveCount"),
        ({"RedrivePolicy": json.dumps({"maxReceiveCount": "9"})}, "maxReceiveCount"),
        ({"FifoQueue": "true"}, "standard queue"),
    ],
)
def test_settings_that_harm_are_told(attributes: dict[str, str], remedy: str) -> None:
    found = bad(seen(attributes=WELL | attributes))

    assert list(found) == ["settings of mail"]
    assert remedy in found["settings of mail"]


def test_settings_that_do_no_harm_are_well() -> None:
    policy = {"RedrivePolicy": json.dumps({"maxReceiveCount": 10})}

    assert bad(seen(attributes=WELL | policy | {"MessageRetentionPeriod": "60"})) == {}


def test_an_endpoint_that_does_not_answer_is_told() -> None:
    found = bad(seen(problem="EndpointConnectionError", attributes={}))

    assert list(found) == ["queue of mail"]
    assert "ASYNC_JOBS_SQS_QUEUE_MAIL" in found["queue of mail"]
