"""Messages: what may be in them, and that it comes back as it was."""

from __future__ import annotations

import hashlib
import struct

import pytest
from remote_queue import RemoteQueue, refused

MEBIBYTE = 1_048_576

ATTRIBUTES = {
    "colour": {"DataType": "String", "StringValue": "blå"},
    "weight": {"DataType": "Number.int", "StringValue": "12"},
    "trace.id": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}


def _md5_of_attributes() -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(ATTRIBUTES):
        attribute = ATTRIBUTES[name]
        is_binary = "BinaryValue" in attribute
        value = attribute["BinaryValue"] if is_binary else attribute["StringValue"].encode()
        for part in (name.encode(), attribute["DataType"].encode()):
            digest.update(struct.pack(">I", len(part)) + part)
        digest.update(bytes([2 if is_binary else 1]) + struct.pack(">I", len(value)) + value)
    return digest.hexdigest()


def test_a_message_of_one_mebibyte_comes_back_as_it_was(queue: RemoteQueue) -> None:
    """Amazon SQS message quotas (Developer Guide)"""
    queue.send("x" * MEBIBYTE)

    assert queue.take()["Body"] == "x" * MEBIBYTE


def test_a_message_one_byte_longer_than_one_mebibyte_is_refused(queue: RemoteQueue) -> None:
    """Amazon SQS message quotas (Developer Guide)"""
    with refused("InvalidParameterValue"):
        queue.send("x" * (MEBIBYTE + 1))


def test_attributes_count_towards_the_size_of_a_message(queue: RemoteQueue) -> None:
    """Amazon SQS message metadata (Developer Guide)"""
    with refused("InvalidParameterValue"):
        queue.send("x" * (MEBIBYTE - 2), MessageAttributes=ATTRIBUTES)


def test_a_message_longer_than_the_queue_allows_is_refused(new_queue) -> None:
    """CreateQueue (API Reference)"""
    queue = new_queue(MaximumMessageSize="1024")
    with refused("InvalidParameterValue"):
        queue.send("x" * 1025)


@pytest.mark.parametrize(
    "character", ["\x00", "\x08", "\x1f", "\ufffe"], ids=["x00", "x08", "x1f", "xfffe"]
)
def test_a_character_outside_the_allowed_set_is_refused(queue: RemoteQueue, character: str) -> None:
    """SendMessage (API Reference)"""
    with refused("InvalidMessageContents"):
        queue.send(f"a{character}b")


def test_tabs_line_ends_and_characters_beyond_the_basic_plane_are_kept(
    queue: RemoteQueue,
) -> None:
    """SendMessage (API Reference)"""
    queue.send("a\t\r\n\x7f ü 𝄞")

    assert queue.take()["Body"] == "a\t\r\n\x7f ü 𝄞"


def test_an_empty_message_is_refused(queue: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    with refused("InvalidMessageContents", "MissingParameter", "InvalidParameterValue"):
        queue.send("")


def test_the_digest_of_the_body_is_its_md5(queue: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    sent = queue.send("blå")
    expected = hashlib.md5("blå".encode(), usedforsecurity=False).hexdigest()

    assert sent["MD5OfMessageBody"] == expected
    assert queue.take()["MD5OfBody"] == expected


def test_the_digest_of_the_attributes_is_the_documented_one(queue: RemoteQueue) -> None:
    """Amazon SQS message metadata (Developer Guide)"""
    sent = queue.send(MessageAttributes=ATTRIBUTES)

    assert sent["MD5OfMessageAttributes"] == _md5_of_attributes()
    assert (
        queue.take(MessageAttributeNames=["All"])["MD5OfMessageAttributes"] == _md5_of_attributes()
    )


def test_attributes_come_back_as_they_were(queue: RemoteQueue) -> None:
    """Amazon SQS message metadata (Developer Guide)"""
    queue.send(MessageAttributes=ATTRIBUTES)

    assert queue.take(MessageAttributeNames=["All"])["MessageAttributes"] == ATTRIBUTES


def test_a_receiver_gets_only_the_attributes_it_names(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send(MessageAttributes=ATTRIBUTES)
    message = queue.take(MessageAttributeNames=["colour", "absent"])

    assert list(message["MessageAttributes"]) == ["colour"]


def test_a_receiver_may_name_attributes_by_their_beginning(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send(MessageAttributes=ATTRIBUTES)
    message = queue.take(MessageAttributeNames=["trace.*"])

    assert list(message["MessageAttributes"]) == ["trace.id"]


def test_a_receiver_that_names_no_attributes_gets_none(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send(MessageAttributes=ATTRIBUTES)
    message = queue.take()

    assert "MessageAttributes" not in message
    assert "Attributes" not in message


def test_a_message_has_ten_attributes_at_most(queue: RemoteQueue) -> None:
    """Amazon SQS message quotas (Developer Guide)"""
    eleven = {f"a{n}": {"DataType": "String", "StringValue": "x"} for n in range(11)}
    with refused("InvalidParameterValue"):
        queue.send(MessageAttributes=eleven)


@pytest.mark.parametrize("name", [".begins", "ends.", "a..b", "AWS.x", "with space"])
def test_an_attribute_name_outside_the_rules_is_refused(queue: RemoteQueue, name: str) -> None:
    """Amazon SQS message metadata (Developer Guide)"""
    with refused("InvalidParameterValue"):
        queue.send(MessageAttributes={name: {"DataType": "String", "StringValue": "x"}})


def test_system_attributes_tell_when_and_how_often(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send()
    told = queue.take(MessageSystemAttributeNames=["All"])["Attributes"]

    assert told["ApproximateReceiveCount"] == "1"
    assert 0 <= int(told["ApproximateFirstReceiveTimestamp"]) - int(told["SentTimestamp"]) < 60_000
    assert told["SenderId"]


def test_the_older_name_of_the_system_attributes_parameter_still_works(
    queue: RemoteQueue,
) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send()
    told = queue.take(AttributeNames=["ApproximateReceiveCount"])["Attributes"]

    assert told == {"ApproximateReceiveCount": "1"}


def test_a_trace_header_travels_with_the_message(queue: RemoteQueue) -> None:
    """MessageSystemAttributeValue (API Reference)"""
    header = "Root=1-5759e988-bd862e3fe1be46a994272793"
    value = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
    queue.send(MessageSystemAttributes=value)
    told = queue.take(MessageSystemAttributeNames=["All"])["Attributes"]

    assert told["AWSTraceHeader"] == header


def test_the_answer_to_a_trace_header_has_its_digest(queue: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    value = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3f"}}
    sent = queue.send(MessageSystemAttributes=value)

    assert len(sent["MD5OfMessageSystemAttributes"]) == 32


def test_a_group_id_travels_with_a_message_of_a_standard_queue(queue: RemoteQueue) -> None:
    """Amazon SQS fair queues (Developer Guide)"""
    queue.send(MessageGroupId="tenant-1")
    told = queue.take(MessageSystemAttributeNames=["MessageGroupId"])["Attributes"]

    assert told == {"MessageGroupId": "tenant-1"}
