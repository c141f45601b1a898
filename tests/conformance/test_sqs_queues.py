"""Queues: names, attributes, tags, lists, and what errors look like on the wire."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from remote_queue import RemoteQueue, new_name, raw_connection, raw_request, refused


def test_a_queue_created_again_with_the_same_attributes_is_the_same(sqs: Any, new_queue) -> None:
    """CreateQueue (API Reference)"""
    queue = new_queue(DelaySeconds="5")
    again = sqs.create_queue(QueueName=queue.name, Attributes={"DelaySeconds": "5"})

    assert again["QueueUrl"] == queue.url


def test_a_queue_created_again_with_other_attributes_is_refused(sqs: Any, new_queue) -> None:
    """CreateQueue (API Reference)"""
    queue = new_queue(DelaySeconds="5")
    with refused("QueueAlreadyExists"):
        sqs.create_queue(QueueName=queue.name, Attributes={"DelaySeconds": "6"})


def test_a_name_is_free_only_a_minute_after_its_queue_was_deleted(
    sqs: Any, queue: RemoteQueue
) -> None:
    """DeleteQueue (API Reference)"""
    sqs.delete_queue(QueueUrl=queue.url)
    with refused("AWS.SimpleQueueService.QueueDeletedRecently"):
        sqs.create_queue(QueueName=queue.name)


@pytest.mark.parametrize(
    "name", ["with space", "x" * 81, "dot.ted"], ids=["space", "81 letters", "dot"]
)
def test_a_queue_name_outside_the_rules_is_refused(sqs: Any, name: str) -> None:
    """CreateQueue (API Reference)"""
    with refused("InvalidParameterValue"):
        sqs.create_queue(QueueName=name)


def test_a_fifo_name_without_the_fifo_attribute_is_refused(sqs: Any) -> None:
    """CreateQueue (API Reference)"""
    with refused("InvalidParameterValue"):
        sqs.create_queue(QueueName=new_name(".fifo"))


def test_the_fifo_attribute_without_a_fifo_name_is_refused(sqs: Any) -> None:
    """CreateQueue (API Reference)"""
    with refused("InvalidParameterValue"):
        sqs.create_queue(QueueName=new_name(), Attributes={"FifoQueue": "true"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VisibilityTimeout", "43201"),
        ("DelaySeconds", "901"),
        ("MessageRetentionPeriod", "59"),
        ("MaximumMessageSize", "1048577"),
        ("ReceiveMessageWaitTimeSeconds", "21"),
        ("VisibilityTimeout", "soon"),
    ],
)
def test_an_attribute_value_outside_the_limits_is_refused(new_queue, name: str, value: str) -> None:
    """CreateQueue (API Reference)"""
    with refused("InvalidAttributeValue"):
        new_queue(**{name: value})


def test_an_unknown_attribute_is_refused(new_queue) -> None:
    """CreateQueue (API Reference)"""
    with refused("InvalidAttributeName"):
        new_queue(Colour="blue")


def test_a_changed_attribute_is_read_back(queue: RemoteQueue) -> None:
    """SetQueueAttributes (API Reference)"""
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "17"})

    assert queue.attributes("VisibilityTimeout") == {"VisibilityTimeout": "17"}


def test_a_new_queue_has_the_documented_defaults(queue: RemoteQueue) -> None:
    """CreateQueue (API Reference)"""
    told = queue.attributes()

    assert told["VisibilityTimeout"] == "30"
    assert told["DelaySeconds"] == "0"
    assert told["ReceiveMessageWaitTimeSeconds"] == "0"
    assert told["MessageRetentionPeriod"] == "345600"
    assert told["MaximumMessageSize"] == "1048576"


def test_an_unknown_attribute_cannot_be_asked_for(queue: RemoteQueue) -> None:
    """GetQueueAttributes (API Reference)"""
    with refused("InvalidAttributeName"):
        queue.attributes("Colour")


def test_a_queue_is_found_by_its_name(sqs: Any, queue: RemoteQueue) -> None:
    """GetQueueUrl (API Reference)"""
    assert sqs.get_queue_url(QueueName=queue.name)["QueueUrl"] == queue.url


def test_a_name_without_a_queue_is_refused(sqs: Any) -> None:
    """GetQueueUrl (API Reference)"""
    with refused("AWS.SimpleQueueService.NonExistentQueue"):
        sqs.get_queue_url(QueueName=new_name())


def test_a_deleted_queue_takes_no_messages(sqs: Any, queue: RemoteQueue) -> None:
    """DeleteQueue (API Reference)"""
    sqs.delete_queue(QueueUrl=queue.url)
    with refused("AWS.SimpleQueueService.NonExistentQueue"):
        queue.send()


def test_queues_are_listed_by_prefix(sqs: Any, queue: RemoteQueue) -> None:
    """ListQueues (API Reference)"""
    listed = sqs.list_queues(QueueNamePrefix=queue.name[:-3])["QueueUrls"]

    assert listed == [queue.url]


def test_a_list_of_queues_comes_in_pages(sqs: Any, new_queue) -> None:
    """ListQueues (API Reference)"""
    made = {new_queue().url for _ in range(3)}
    listed: list[str] = []
    token: dict[str, str] = {}
    while True:
        answer = sqs.list_queues(QueueNamePrefix="check-", MaxResults=2, **token)
        listed += answer.get("QueueUrls", [])
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}

    assert made <= set(listed)
    assert len(listed) == len(set(listed))


def test_tags_are_kept_and_taken_off(sqs: Any, queue: RemoteQueue) -> None:
    """TagQueue (API Reference)"""
    sqs.tag_queue(QueueUrl=queue.url, Tags={"team": "a", "stage": "test"})
    sqs.untag_queue(QueueUrl=queue.url, TagKeys=["stage"])

    assert sqs.list_queue_tags(QueueUrl=queue.url)["Tags"] == {"team": "a"}


def test_an_error_carries_its_full_type_and_its_older_code(endpoint_url: str) -> None:
    """Making query API requests using the AWS JSON protocol in Amazon SQS (Developer Guide)"""
    with raw_connection(endpoint_url) as connection:
        connection.sendall(raw_request(endpoint_url, "GetQueueUrl", QueueName=new_name()))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        content = json.loads(answer.read())
        code = answer.getheader("x-amzn-query-error")
        answer.close()

    assert answer.status == 400
    assert content["__type"] == "com.amazonaws.sqs#QueueDoesNotExist"
    assert code == "AWS.SimpleQueueService.NonExistentQueue;Sender"
