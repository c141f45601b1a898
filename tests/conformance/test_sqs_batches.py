"""Batches: how many entries, how long, and what fails alone."""

from __future__ import annotations

from remote_queue import RemoteQueue, bodies, refused

MEBIBYTE = 1_048_576


def _entries(count: int, body: str = "hello") -> list[dict[str, str]]:
    return [{"Id": str(number), "MessageBody": body} for number in range(count)]


def test_a_batch_of_ten_is_accepted_and_every_entry_answered(queue: RemoteQueue) -> None:
    """SendMessageBatch (API Reference)"""
    answer = queue.send_batch(_entries(10))

    assert {str(number) for number in range(10)} == {one["Id"] for one in answer["Successful"]}
    assert not answer.get("Failed")


def test_a_batch_of_eleven_is_refused(queue: RemoteQueue) -> None:
    """SendMessageBatch (API Reference)"""
    with refused("AWS.SimpleQueueService.TooManyEntriesInBatchRequest"):
        queue.send_batch(_entries(11))


def test_an_empty_batch_is_refused(queue: RemoteQueue) -> None:
    """SendMessageBatch (API Reference)"""
    with refused("AWS.SimpleQueueService.EmptyBatchRequest"):
        queue.send_batch([])


def test_a_batch_with_the_same_entry_id_twice_is_refused(queue: RemoteQueue) -> None:
    """SendMessageBatch (API Reference)"""
    with refused("AWS.SimpleQueueService.BatchEntryIdsNotDistinct"):
        queue.send_batch(_entries(1) * 2)


def test_an_entry_id_with_an_illegal_character_is_refused(queue: RemoteQueue) -> None:
    """SendMessageBatchRequestEntry (API Reference)"""
    with refused("AWS.SimpleQueueService.InvalidBatchEntryId"):
        queue.send_batch([{"Id": "not:allowed", "MessageBody": "hello"}])


def test_a_batch_longer_than_one_mebibyte_is_refused(queue: RemoteQueue) -> None:
    """Amazon SQS message quotas (Developer Guide)"""
    with refused("AWS.SimpleQueueService.BatchRequestTooLong"):
        queue.send_batch(_entries(2, "x" * (MEBIBYTE // 2 + 1)))


def test_a_batch_of_exactly_one_mebibyte_is_accepted(queue: RemoteQueue) -> None:
    """Amazon SQS message quotas (Developer Guide)"""
    answer = queue.send_batch(_entries(2, "x" * (MEBIBYTE // 2)))

    assert len(answer["Successful"]) == 2


def test_an_entry_with_a_delay_of_901_seconds_fails_alone(queue: RemoteQueue) -> None:
    """SendMessageBatch (API Reference)"""
    good, bad = _entries(2)
    answer = queue.send_batch([good, {**bad, "DelaySeconds": 901}])

    assert [one["Id"] for one in answer["Successful"]] == [good["Id"]]
    assert [(one["Id"], one["SenderFault"]) for one in answer["Failed"]] == [(bad["Id"], True)]


def test_an_entry_with_an_illegal_character_fails_alone(queue: RemoteQueue) -> None:
    """SendMessageBatch (API Reference)"""
    good, bad = _entries(2)
    answer = queue.send_batch([good, {**bad, "MessageBody": "a\x00b"}])

    assert [one["Id"] for one in answer["Successful"]] == [good["Id"]]
    assert [one["Code"] for one in answer["Failed"]] == ["InvalidMessageContents"]


def test_a_delete_batch_removes_every_message(queue: RemoteQueue) -> None:
    """DeleteMessageBatch (API Reference)"""
    queue.send_many(["a", "b", "c"])
    received = queue.receive()
    entries = [
        {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
        for number, message in enumerate(received)
    ]

    answer = queue.sqs.delete_message_batch(QueueUrl=queue.url, Entries=entries)

    assert len(answer["Successful"]) == 3
    assert queue.counts() == (0, 0, 0)


def test_a_delete_batch_fails_only_for_the_handle_that_is_none(queue: RemoteQueue) -> None:
    """DeleteMessageBatch (API Reference)"""
    queue.send()
    entries = [
        {"Id": "good", "ReceiptHandle": queue.take()["ReceiptHandle"]},
        {"Id": "bad", "ReceiptHandle": "no handle"},
    ]

    answer = queue.sqs.delete_message_batch(QueueUrl=queue.url, Entries=entries)

    assert [one["Id"] for one in answer["Successful"]] == ["good"]
    assert [(one["Id"], one["Code"]) for one in answer["Failed"]] == [
        ("bad", "ReceiptHandleIsInvalid")
    ]


def test_a_delete_batch_of_eleven_is_refused(queue: RemoteQueue) -> None:
    """DeleteMessageBatch (API Reference)"""
    entries = [{"Id": str(number), "ReceiptHandle": "x"} for number in range(11)]
    with refused("AWS.SimpleQueueService.TooManyEntriesInBatchRequest"):
        queue.sqs.delete_message_batch(QueueUrl=queue.url, Entries=entries)


def test_a_visibility_batch_shows_messages_and_fails_only_for_bad_handles(
    queue: RemoteQueue,
) -> None:
    """ChangeMessageVisibilityBatch (API Reference)"""
    queue.send("again")
    entries = [
        {"Id": "good", "ReceiptHandle": queue.take()["ReceiptHandle"], "VisibilityTimeout": 0},
        {"Id": "bad", "ReceiptHandle": "no handle", "VisibilityTimeout": 0},
    ]

    answer = queue.sqs.change_message_visibility_batch(QueueUrl=queue.url, Entries=entries)

    assert [one["Id"] for one in answer["Successful"]] == ["good"]
    assert [one["Id"] for one in answer["Failed"]] == ["bad"]
    assert bodies(queue.receive(wait=1)) == ["again"]
