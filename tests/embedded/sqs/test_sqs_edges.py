"""What a client seldom does: move tasks that fail, odd attributes, odd addresses."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from async_jobs.embedded.sqs import SqsServer


@pytest.fixture
def dead_url(server: SqsServer, sqs: Any) -> str:
    """A dead-letter queue with one message from the queue `source` in it."""
    url = server.create_queue("dead")
    policy = {"deadLetterTargetArn": _arn("dead"), "maxReceiveCount": 1}
    source = server.create_queue("source", RedrivePolicy=json.dumps(policy))
    sqs.send_message(QueueUrl=source, MessageBody="poison")
    for _ in range(2):
        sqs.receive_message(QueueUrl=source, VisibilityTimeout=0)
    return url


def _arn(name: str) -> str:
    return f"arn:aws:sqs:us-east-1:000000000000:{name}"


def _refusal(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return caught.value.response["Error"]["Code"].rpartition(".")[2]


def _last_move(sqs: Any) -> dict[str, Any]:
    while True:
        (move,) = sqs.list_message_move_tasks(SourceArn=_arn("dead"))["Results"]
        if move["Status"] != "RUNNING":
            return move


def test_a_move_fails_when_its_destination_is_deleted(server: SqsServer, sqs, dead_url) -> None:
    target = server.create_queue("target")
    sqs.send_message(QueueUrl=dead_url, MessageBody="second")
    sqs.start_message_move_task(
        SourceArn=_arn("dead"), DestinationArn=_arn("target"), MaxNumberOfMessagesPerSecond=5
    )
    sqs.delete_queue(QueueUrl=target)
    move = _last_move(sqs)

    assert (move["Status"], move["FailureReason"]) == (
        "FAILED",
        "AWS.SimpleQueueService.NonExistentQueue",
    )


def test_a_message_that_came_from_nowhere_stays_and_fails_the_move(
    server: SqsServer, sqs, dead_url
) -> None:
    sqs.send_message(QueueUrl=dead_url, MessageBody="sent here directly")
    sqs.start_message_move_task(SourceArn=_arn("dead"))
    move = _last_move(sqs)

    assert (move["Status"], move["ApproximateNumberOfMessagesMoved"]) == ("FAILED", 1)
    assert server.messages("dead").visible == 1
    assert server.messages("source").visible == 1


def test_only_one_move_runs_at_a_time(sqs, dead_url) -> None:
    for _ in range(3):
        sqs.send_message(QueueUrl=dead_url, MessageBody="more")
    move = {"SourceArn": _arn("dead"), "MaxNumberOfMessagesPerSecond": 1}
    sqs.start_message_move_task(**move, DestinationArn=_arn("source"))

    assert _refusal(sqs.start_message_move_task, **move) == "InvalidParameterValue"


def test_a_task_handle_that_is_none_is_refused(sqs, dead_url) -> None:
    unknown = base64.b64encode(json.dumps({"sourceArn": _arn("dead")}).encode()).decode()

    assert _refusal(sqs.cancel_message_move_task, TaskHandle="?") == "InvalidParameterValue"
    assert _refusal(sqs.cancel_message_move_task, TaskHandle=unknown) == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("RedrivePolicy", "no json", "InvalidParameterValue"),
        ("RedrivePolicy", '{"deadLetterTargetArn": "x"}', "InvalidParameterValue"),
        ("RedriveAllowPolicy", '{"redrivePermission": "x"}', "InvalidParameterValue"),
        ("Policy", "[]", "InvalidParameterValue"),
        ("SqsManagedSseEnabled", "maybe", "InvalidAttributeValue"),
        ("FifoQueue", "false", "InvalidAttributeName"),
        ("ContentBasedDeduplication", "true", "InvalidAttributeName"),
    ],
)
def test_an_attribute_that_makes_no_sense_is_refused(sqs, name: str, value: str, code: str) -> None:
    assert _refusal(sqs.create_queue, QueueName="odd", Attributes={name: value}) == code


def test_an_emptied_policy_is_gone(server: SqsServer, sqs, dead_url) -> None:
    url = sqs.get_queue_url(QueueName="source")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})

    assert "queueUrls" in sqs.list_dead_letter_source_queues(QueueUrl=dead_url)
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead_url)["queueUrls"] == []


def test_a_key_of_the_key_service_switches_managed_encryption_off(server: SqsServer, sqs) -> None:
    url = server.create_queue("sealed", KmsMasterKeyId="alias/any")
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["SqsManagedSseEnabled"])

    assert told["Attributes"] == {"SqsManagedSseEnabled": "false"}


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("http://host/some/where/else", "InvalidAddress"),
        ("http://host/111111111111/mail", "NonExistentQueue"),
        ("mail", "NonExistentQueue"),
        ("", "MissingParameter"),
    ],
)
def test_an_address_that_is_no_queue_is_refused(sqs, url: str, address: str, code: str) -> None:
    assert _refusal(sqs.send_message, QueueUrl=address, MessageBody="m") == code


@pytest.mark.parametrize(
    "attribute",
    [
        {"DataType": "Text", "StringValue": "x"},
        {"DataType": "String", "StringValue": "a\x00"},
        {"DataType": "Number", "StringValue": "many"},
        {"DataType": "Number"},
        {"DataType": "Binary", "BinaryValue": "no base64!"},
    ],
    ids=str,
)
def test_a_message_attribute_that_makes_no_sense_is_refused(http, url: str, attribute) -> None:
    content = {"QueueUrl": url, "MessageBody": "m", "MessageAttributes": {"a": attribute}}
    status, answer = http.call("SendMessage", json.dumps(content))

    assert (status, "#Invalid" in answer["__type"]) == (400, True)


@pytest.mark.parametrize(
    "more",
    [
        {"MessageGroupId": "with space"},
        {"MessageGroupId": "x" * 129},
        {"MessageDeduplicationId": "for FIFO queues only"},
        {"MessageDeduplicationId": "d"},
        {"MessageSystemAttributes": {"Other": {"DataType": "String", "StringValue": "x"}}},
    ],
    ids=str,
)
def test_a_parameter_outside_its_rules_is_refused(http, url: str, more: dict[str, Any]) -> None:
    content = {"QueueUrl": url, "MessageBody": "m", **more}
    status, answer = http.call("SendMessage", json.dumps(content))

    assert (status, answer["__type"].partition("#")[2]) == (400, "InvalidParameterValueException")


def test_a_batch_for_a_fifo_queue_without_a_group_stores_nothing(server: SqsServer, sqs) -> None:
    url = server.create_queue("steps.fifo", ContentBasedDeduplication="true")
    entries = [
        {"Id": "1", "MessageBody": "a", "MessageGroupId": "g"},
        {"Id": "2", "MessageBody": "b"},
    ]

    assert _refusal(sqs.send_message_batch, QueueUrl=url, Entries=entries) == "MissingParameter"
    assert server.messages("steps.fifo").visible == 0


def test_a_short_poll_of_a_full_queue_is_over_the_limit(sqs, server: SqsServer, url) -> None:
    server._region.by_name("mail").most_in_flight = 1
    for _ in range(2):
        sqs.send_message(QueueUrl=url, MessageBody="m")
    sqs.receive_message(QueueUrl=url)

    assert _refusal(sqs.receive_message, QueueUrl=url) == "OverLimit"


def test_an_unknown_system_attribute_is_refused(http, url: str) -> None:
    content = json.dumps({"QueueUrl": url, "AttributeNames": ["Colour"]})
    _, answer = http.call("ReceiveMessage", content)

    assert answer["__type"] == "com.amazonaws.sqs#InvalidAttributeName"


def test_a_page_token_of_another_server_is_refused(sqs, url: str) -> None:
    code = _refusal(sqs.list_queues, MaxResults=1, NextToken="?")

    assert code == "InvalidParameterValue"
