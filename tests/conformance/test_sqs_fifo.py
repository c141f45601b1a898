"""FIFO queues: order, groups that wait for each other, deduplication."""

from __future__ import annotations

from remote_queue import RemoteQueue, bodies, refused


def _send(queue: RemoteQueue, body: str, group: str = "g", **more: str) -> dict[str, str]:
    more.setdefault("MessageDeduplicationId", body)
    return queue.send(body, MessageGroupId=group, **more)


def test_a_group_is_received_in_the_order_it_was_sent(fifo: RemoteQueue) -> None:
    """Amazon SQS FIFO queue delivery logic (Developer Guide)"""
    for body in "abcde":
        _send(fifo, body)

    assert bodies(fifo.receive()) == list("abcde")


def test_a_returned_message_goes_back_to_its_place(fifo: RemoteQueue) -> None:
    """Amazon SQS FIFO queue delivery logic (Developer Guide)"""
    for body in "abc":
        _send(fifo, body)
    fifo.hide(fifo.take(), 0)

    assert bodies(fifo.receive()) == ["a", "b", "c"]


def test_a_group_waits_while_one_of_its_messages_is_in_flight(fifo: RemoteQueue) -> None:
    """Amazon SQS FIFO queue delivery logic (Developer Guide)"""
    _send(fifo, "a")
    _send(fifo, "b")
    fifo.take()

    assert fifo.receive() == []


def test_a_group_goes_on_when_its_message_is_deleted(fifo: RemoteQueue) -> None:
    """Amazon SQS FIFO queue delivery logic (Developer Guide)"""
    _send(fifo, "a")
    _send(fifo, "b")
    fifo.delete(fifo.take())

    assert bodies(fifo.receive()) == ["b"]


def test_a_deletion_wakes_a_long_poll_that_waits_for_the_group(fifo: RemoteQueue, threads) -> None:
    """Amazon SQS FIFO queue delivery logic (Developer Guide)"""
    _send(fifo, "a")
    _send(fifo, "b")
    message = fifo.take()
    poll = threads.submit(fifo.receive, wait=5)
    fifo.delete(message)

    assert bodies(poll.result()) == ["b"]


def test_another_group_does_not_wait(fifo: RemoteQueue) -> None:
    """Amazon SQS FIFO queue delivery logic (Developer Guide)"""
    _send(fifo, "a", "one")
    _send(fifo, "b", "two")
    fifo.take()

    assert bodies(fifo.receive()) == ["b"]


def test_a_group_whose_visibility_ended_starts_over_in_order(fifo: RemoteQueue) -> None:
    """Amazon SQS FIFO queue delivery logic (Developer Guide)"""
    for body in "abc":
        _send(fifo, body)
    fifo.receive(VisibilityTimeout=1)

    assert bodies(fifo.receive(wait=5)) == ["a", "b", "c"]


def test_sequence_numbers_grow(fifo: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    first, second = _send(fifo, "a"), _send(fifo, "b")

    assert int(first["SequenceNumber"]) < int(second["SequenceNumber"])


def test_a_message_tells_its_group_its_deduplication_id_and_its_number(fifo: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    sent = _send(fifo, "a", "one")
    told = fifo.take(AttributeNames=["All"])["Attributes"]

    assert told["MessageGroupId"] == "one"
    assert told["MessageDeduplicationId"] == "a"
    assert told["SequenceNumber"] == sent["SequenceNumber"]


def test_the_same_deduplication_id_is_accepted_and_not_delivered(fifo: RemoteQueue) -> None:
    """Using the Amazon SQS message deduplication ID (Developer Guide)"""
    _send(fifo, "a", MessageDeduplicationId="same")
    _send(fifo, "b", MessageDeduplicationId="same")

    assert bodies(fifo.receive()) == ["a"]


def test_a_deduplicated_send_answers_with_the_first_message_id(fifo: RemoteQueue) -> None:
    """Using the Amazon SQS message deduplication ID (Developer Guide)"""
    first = _send(fifo, "a")
    second = _send(fifo, "a")

    assert first["MessageId"] == second["MessageId"]


def test_deduplication_outlives_the_message(fifo: RemoteQueue) -> None:
    """Using the Amazon SQS message deduplication ID (Developer Guide)"""
    _send(fifo, "a")
    fifo.delete(fifo.take())
    _send(fifo, "a")

    assert fifo.receive() == []


def test_content_based_deduplication_compares_bodies(new_queue) -> None:
    """Using the Amazon SQS message deduplication ID (Developer Guide)"""
    queue = new_queue(FifoQueue="true", ContentBasedDeduplication="true")
    for body in ("a", "a", "b"):
        queue.send(body, MessageGroupId="g")

    assert bodies(queue.receive()) == ["a", "b"]


def test_deduplication_may_be_by_group(new_queue) -> None:
    """High throughput for FIFO queues in Amazon SQS (Developer Guide)"""
    queue = new_queue(
        FifoQueue="true",
        DeduplicationScope="messageGroup",
        FifoThroughputLimit="perMessageGroupId",
    )
    for group in ("one", "two", "one"):
        _send(queue, "a", group)

    assert bodies(queue.receive()) == ["a", "a"]


def test_a_message_without_a_deduplication_id_is_refused(fifo: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    with refused("InvalidParameterValue"):
        fifo.send(MessageGroupId="g")


def test_a_message_without_a_group_is_refused(fifo: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    with refused("MissingParameter"):
        fifo.send(MessageDeduplicationId="d")


def test_a_delay_of_one_message_is_refused(fifo: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    with refused("InvalidParameterValue"):
        fifo.send(MessageGroupId="g", MessageDeduplicationId="d", DelaySeconds=2)


def test_a_fifo_queue_refuses_to_delete_with_an_expired_handle(fifo: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    _send(fifo, "a")
    message = fifo.take(VisibilityTimeout=1)
    fifo.until_visible(1)
    with refused("InvalidParameterValue"):
        fifo.delete(message)


def test_a_repeated_receive_attempt_gets_the_same_messages(fifo: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    _send(fifo, "a")
    first = fifo.receive(ReceiveRequestAttemptId="attempt")
    again = fifo.receive(ReceiveRequestAttemptId="attempt")

    assert [m["MessageId"] for m in first] == [m["MessageId"] for m in again]
    assert bodies(again) == ["a"]
