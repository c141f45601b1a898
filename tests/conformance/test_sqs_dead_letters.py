"""Dead-letter queues: where given-up messages go, and how they come back."""

from __future__ import annotations

import json

import pytest
from remote_queue import RemoteQueue, bodies, refused, until

# The pages name no code for a policy that cannot be.
BAD_POLICY = ("InvalidParameterValue", "InvalidAttributeValue", "InvalidParameterCombination")

Pair = tuple[RemoteQueue, RemoteQueue]


def _redrive(arn: str, count: object) -> str:
    return json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": count})


@pytest.fixture
def pair(new_queue) -> Pair:
    """A queue that gives messages up after one receive, and its dead-letter queue."""
    dead = new_queue()
    return new_queue(RedrivePolicy=_redrive(dead.arn, 1)), dead


def _give_up(queue: RemoteQueue, dead: RemoteQueue, body: str = "poison") -> dict[str, str]:
    sent = queue.send(body)
    queue.take(VisibilityTimeout=0)
    until(lambda: not queue.receive() and dead.counts()[0] > 0)
    return sent


def test_a_message_received_too_often_goes_to_the_dead_letter_queue(pair: Pair) -> None:
    """Using dead-letter queues in Amazon SQS (Developer Guide)"""
    queue, dead = pair
    _give_up(queue, dead)

    assert queue.counts() == (0, 0, 0)
    assert bodies(dead.receive()) == ["poison"]


def test_a_dead_letter_keeps_its_message_id(pair: Pair) -> None:
    """Using dead-letter queues in Amazon SQS (Developer Guide)"""
    queue, dead = pair
    sent = _give_up(queue, dead)

    assert dead.take()["MessageId"] == sent["MessageId"]


def test_a_dead_letter_tells_where_it_came_from(pair: Pair) -> None:
    """ReceiveMessage (API Reference)"""
    queue, dead = pair
    _give_up(queue, dead)
    message = dead.take(AttributeNames=["All"])

    assert message["Attributes"]["DeadLetterQueueSourceArn"] == queue.arn


def test_a_long_poll_of_the_dead_letter_queue_gets_the_message(pair: Pair, threads) -> None:
    """Using dead-letter queues in Amazon SQS (Developer Guide)"""
    queue, dead = pair
    poll = threads.submit(dead.receive, wait=5)
    _ = queue.send("poison"), queue.take(VisibilityTimeout=0), queue.receive()

    assert bodies(poll.result()) == ["poison"]


def test_a_dead_letter_queue_lists_its_sources(pair: Pair) -> None:
    """ListDeadLetterSourceQueues (API Reference)"""
    queue, dead = pair
    listed = dead.sqs.list_dead_letter_source_queues(QueueUrl=dead.url)["queueUrls"]

    assert [url.rpartition("/")[2] for url in listed] == [queue.name]


def test_a_move_task_brings_dead_letters_back(pair: Pair) -> None:
    """StartMessageMoveTask (API Reference)"""
    queue, dead = pair
    _give_up(queue, dead)
    queue.sqs.start_message_move_task(SourceArn=dead.arn)

    assert bodies(queue.receive(wait=5)) == ["poison"]


def test_a_move_task_may_name_another_destination(pair: Pair, new_queue) -> None:
    """StartMessageMoveTask (API Reference)"""
    queue, dead = pair
    other = new_queue()
    _give_up(queue, dead)
    queue.sqs.start_message_move_task(SourceArn=dead.arn, DestinationArn=other.arn)

    assert bodies(other.receive(wait=5)) == ["poison"]


def test_a_finished_move_task_is_listed_with_its_numbers(pair: Pair) -> None:
    """ListMessageMoveTasks (API Reference)"""
    queue, dead = pair
    _give_up(queue, dead)
    queue.sqs.start_message_move_task(SourceArn=dead.arn)

    def listed() -> dict[str, object]:
        return queue.sqs.list_message_move_tasks(SourceArn=dead.arn)["Results"][0]

    until(lambda: listed()["Status"] == "COMPLETED")

    assert listed()["ApproximateNumberOfMessagesMoved"] == 1
    assert "TaskHandle" not in listed()


def test_a_running_move_task_can_be_cancelled(pair: Pair) -> None:
    """CancelMessageMoveTask (API Reference)"""
    queue, dead = pair
    for body in ("a", "b", "c"):
        _give_up(queue, dead, body)
    until(lambda: dead.counts()[0] == 3)
    handle = queue.sqs.start_message_move_task(SourceArn=dead.arn, MaxNumberOfMessagesPerSecond=1)[
        "TaskHandle"
    ]
    queue.sqs.cancel_message_move_task(TaskHandle=handle)
    listed = queue.sqs.list_message_move_tasks(SourceArn=dead.arn)["Results"]

    assert listed[0]["Status"] in ("CANCELLING", "CANCELLED")


def test_a_move_from_a_queue_that_is_no_dead_letter_queue_is_refused(queue: RemoteQueue) -> None:
    """StartMessageMoveTask (API Reference)"""
    arn = queue.arn
    with refused("InvalidParameterValue"):
        queue.sqs.start_message_move_task(SourceArn=arn)


def test_a_move_from_a_queue_that_does_not_exist_is_refused(queue: RemoteQueue) -> None:
    """StartMessageMoveTask (API Reference)"""
    arn = f"{queue.arn}-absent"
    with refused("ResourceNotFoundException"):
        queue.sqs.start_message_move_task(SourceArn=arn)


def test_a_redrive_to_a_queue_that_does_not_exist_is_refused(queue: RemoteQueue, new_queue) -> None:
    """CreateQueue (API Reference)"""
    policy = _redrive(f"{queue.arn}-absent", 1)
    with refused(*BAD_POLICY, "AWS.SimpleQueueService.NonExistentQueue"):
        new_queue(RedrivePolicy=policy)


def test_a_redrive_after_no_receive_at_all_is_refused(queue: RemoteQueue, new_queue) -> None:
    """CreateQueue (API Reference)"""
    policy = _redrive(queue.arn, 0)
    with refused(*BAD_POLICY):
        new_queue(RedrivePolicy=policy)


def test_a_standard_queue_is_no_dead_letter_queue_of_a_fifo_queue(
    queue: RemoteQueue, new_queue
) -> None:
    """Using dead-letter queues in Amazon SQS (Developer Guide)"""
    policy = _redrive(queue.arn, 1)
    with refused(*BAD_POLICY):
        new_queue(FifoQueue="true", RedrivePolicy=policy)
