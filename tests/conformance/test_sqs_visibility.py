"""Visibility, receipt handles, receive counts, delays and counts."""

from __future__ import annotations

from remote_queue import RemoteQueue, bodies, refused


def test_a_received_message_is_hidden(queue: RemoteQueue) -> None:
    """Amazon SQS visibility timeout (Developer Guide)"""
    queue.send()
    queue.take(VisibilityTimeout=600)

    assert queue.receive() == []


def test_a_hidden_message_comes_back_when_its_visibility_timeout_ends(
    queue: RemoteQueue,
) -> None:
    """Amazon SQS visibility timeout (Developer Guide)"""
    queue.send("again")
    queue.take(VisibilityTimeout=1)

    assert bodies(queue.receive(wait=5)) == ["again"]


def test_the_visibility_timeout_of_the_queue_holds_when_a_receive_names_none(new_queue) -> None:
    """Amazon SQS visibility timeout (Developer Guide)"""
    queue = new_queue(VisibilityTimeout="1")
    queue.send("again")
    queue.take()

    assert bodies(queue.receive(wait=5)) == ["again"]


def test_a_visibility_of_zero_shows_a_message_at_once(queue: RemoteQueue) -> None:
    """ChangeMessageVisibility (API Reference)"""
    queue.send("again")
    queue.hide(queue.take(), 0)

    assert bodies(queue.receive()) == ["again"]


def test_a_longer_visibility_keeps_a_message_hidden(queue: RemoteQueue) -> None:
    """ChangeMessageVisibility (API Reference)"""
    queue.send()
    queue.hide(queue.take(VisibilityTimeout=2), 60)

    assert queue.receive(wait=3) == []


def test_a_visibility_over_twelve_hours_is_refused(queue: RemoteQueue) -> None:
    """ChangeMessageVisibility (API Reference)"""
    queue.send()
    message = queue.take()
    with refused("InvalidParameterValue"):
        queue.hide(message, 43_201)


def test_the_visibility_of_a_message_that_timed_out_cannot_be_changed(queue: RemoteQueue) -> None:
    """ChangeMessageVisibility (API Reference)"""
    queue.send()
    message = queue.take(VisibilityTimeout=1)
    queue.until_visible(1)
    with refused("AWS.SimpleQueueService.MessageNotInflight"):
        queue.hide(message, 10)


def test_the_receive_count_grows_and_the_first_receive_stays(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send()
    first = queue.take(VisibilityTimeout=0, AttributeNames=["All"])["Attributes"]
    second = queue.take(AttributeNames=["All"])["Attributes"]

    assert (first["ApproximateReceiveCount"], second["ApproximateReceiveCount"]) == ("1", "2")
    assert first["ApproximateFirstReceiveTimestamp"] == second["ApproximateFirstReceiveTimestamp"]


def test_every_receive_gives_another_handle_and_the_same_message_id(queue: RemoteQueue) -> None:
    """Amazon SQS queue and message identifiers (Developer Guide)"""
    sent = queue.send()
    first = queue.take(VisibilityTimeout=0)
    second = queue.take()

    assert first["ReceiptHandle"] != second["ReceiptHandle"]
    assert sent["MessageId"] == first["MessageId"] == second["MessageId"]


def test_a_deleted_message_does_not_come_back(queue: RemoteQueue) -> None:
    """DeleteMessage (API Reference)"""
    queue.send()
    queue.delete(queue.take(VisibilityTimeout=1))

    assert queue.receive(wait=2) == []


def test_a_message_that_timed_out_can_still_be_deleted(queue: RemoteQueue) -> None:
    """DeleteMessage (API Reference)"""
    queue.send()
    message = queue.take(VisibilityTimeout=1)
    queue.until_visible(1)
    queue.delete(message)

    assert queue.receive() == []


def test_a_handle_superseded_by_a_later_receive_deletes_nothing(queue: RemoteQueue) -> None:
    """DeleteMessage (API Reference)"""
    queue.send("kept")
    superseded = queue.take(VisibilityTimeout=0)
    latest = queue.take()
    queue.delete(superseded)
    queue.hide(latest, 0)

    assert bodies(queue.receive()) == ["kept"]


def test_deleting_a_message_twice_is_no_error(queue: RemoteQueue) -> None:
    """DeleteMessage (API Reference)"""
    queue.send()
    message = queue.take()
    queue.delete(message)
    queue.delete(message)

    assert queue.counts() == (0, 0, 0)


def test_a_handle_that_is_none_is_refused(queue: RemoteQueue) -> None:
    """DeleteMessage (API Reference)"""
    with refused("ReceiptHandleIsInvalid"):
        queue.delete({"ReceiptHandle": "no handle"})


def test_a_handle_of_another_queue_is_refused(new_queue) -> None:
    """DeleteMessage (API Reference)"""
    queue, other = new_queue(), new_queue()
    queue.send()
    message = queue.take()
    with refused("ReceiptHandleIsInvalid"):
        other.delete(message)


def test_the_delay_of_the_queue_hides_a_new_message(new_queue) -> None:
    """Amazon SQS delay queues (Developer Guide)"""
    queue = new_queue(DelaySeconds="600")
    queue.send()

    assert queue.receive() == []


def test_a_delayed_message_arrives_when_the_delay_of_the_queue_ends(new_queue) -> None:
    """Amazon SQS delay queues (Developer Guide)"""
    queue = new_queue(DelaySeconds="1")
    queue.send("later")

    assert bodies(queue.receive(wait=5)) == ["later"]


def test_the_delay_of_a_message_overrides_that_of_the_queue(new_queue) -> None:
    """Amazon SQS message timers (Developer Guide)"""
    queue = new_queue(DelaySeconds="900")
    queue.send("now", DelaySeconds=0)

    assert bodies(queue.receive(wait=1)) == ["now"]


def test_a_delay_of_901_seconds_is_refused(queue: RemoteQueue) -> None:
    """SendMessage (API Reference)"""
    with refused("InvalidParameterValue"):
        queue.send(DelaySeconds=901)


def test_counts_tell_visible_in_flight_and_delayed_messages(queue: RemoteQueue) -> None:
    """GetQueueAttributes (API Reference)"""
    queue.send_many(["a", "b", "c"])
    queue.send("d", DelaySeconds=900)
    queue.receive(most=1)

    assert queue.counts() == (2, 1, 1)


def test_a_purge_forgets_every_message(queue: RemoteQueue) -> None:
    """PurgeQueue (API Reference)"""
    queue.send_many(["a", "b"])
    queue.send("c", DelaySeconds=900)
    queue.receive(most=1)
    queue.sqs.purge_queue(QueueUrl=queue.url)

    assert queue.counts() == (0, 0, 0)


def test_a_second_purge_within_a_minute_is_refused(queue: RemoteQueue) -> None:
    """PurgeQueue (API Reference)"""
    queue.sqs.purge_queue(QueueUrl=queue.url)
    with refused("AWS.SimpleQueueService.PurgeQueueInProgress"):
        queue.sqs.purge_queue(QueueUrl=queue.url)
