"""Receiving: limits, long polls, and that nothing is lost or given twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from remote_queue import Message, RemoteQueue, bodies, raw_connection, raw_request, refused


@pytest.mark.parametrize(
    "parameters",
    [
        {"MaxNumberOfMessages": 0},
        {"MaxNumberOfMessages": 11},
        {"WaitTimeSeconds": 21},
        {"VisibilityTimeout": 43_201},
    ],
    ids=["no messages", "eleven messages", "21 seconds", "over twelve hours"],
)
def test_a_receive_outside_the_limits_is_refused(
    queue: RemoteQueue, parameters: dict[str, int]
) -> None:
    """ReceiveMessage (API Reference)"""
    with refused("InvalidParameterValue"):
        queue.sqs.receive_message(QueueUrl=queue.url, **parameters)


def test_an_empty_queue_answers_without_messages(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    answer = queue.sqs.receive_message(QueueUrl=queue.url)

    assert "Messages" not in answer


def test_a_receive_without_a_number_gets_one_message(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send_many(["a", "b"])

    assert len(queue.sqs.receive_message(QueueUrl=queue.url)["Messages"]) == 1


def test_a_receive_never_gets_more_than_it_asked_for(queue: RemoteQueue) -> None:
    """ReceiveMessage (API Reference)"""
    queue.send_many([str(number) for number in range(12)])

    assert len(queue.receive(most=10)) <= 10


def test_a_long_poll_of_an_empty_queue_waits_its_time(queue: RemoteQueue) -> None:
    """Amazon SQS short and long polling (Developer Guide)"""
    began = time.monotonic()

    assert queue.receive(wait=1) == []
    assert 0.9 < time.monotonic() - began < 10


def test_the_wait_time_of_the_queue_holds_when_a_receive_names_none(new_queue) -> None:
    """Amazon SQS short and long polling (Developer Guide)"""
    queue = new_queue(ReceiveMessageWaitTimeSeconds="1")
    began = time.monotonic()
    queue.sqs.receive_message(QueueUrl=queue.url)

    assert 0.9 < time.monotonic() - began < 10


def test_a_long_poll_returns_as_soon_as_a_message_is_sent(
    queue: RemoteQueue, threads: ThreadPoolExecutor
) -> None:
    """Amazon SQS short and long polling (Developer Guide)"""
    poll = threads.submit(queue.receive, wait=10)
    time.sleep(0.2)  # lets the poll begin; the check holds without it, and says less
    sent_at = time.monotonic()
    queue.send("now")

    assert bodies(poll.result()) == ["now"]
    assert time.monotonic() - sent_at < 5


def test_a_long_poll_returns_when_a_delay_ends(queue: RemoteQueue) -> None:
    """Amazon SQS short and long polling (Developer Guide)"""
    queue.send("later", DelaySeconds=1)
    began = time.monotonic()

    assert bodies(queue.receive(wait=10)) == ["later"]
    assert time.monotonic() - began < 5


def test_a_long_poll_returns_when_a_visibility_timeout_ends(queue: RemoteQueue) -> None:
    """Amazon SQS visibility timeout (Developer Guide)"""
    queue.send("again")
    queue.take(VisibilityTimeout=1)
    began = time.monotonic()

    assert bodies(queue.receive(wait=10)) == ["again"]
    assert time.monotonic() - began < 5


def test_fifty_waiting_receives_do_not_hold_up_a_send(
    queue: RemoteQueue, threads: ThreadPoolExecutor
) -> None:
    """Amazon SQS short and long polling (Developer Guide)"""
    polls = [threads.submit(queue.receive, most=1, wait=10) for _ in range(50)]
    time.sleep(0.5)  # lets the polls begin; the check holds without it, and says less
    began = time.monotonic()
    queue.send_many(["x"] * 50)
    taken = time.monotonic() - began

    assert sum(len(poll.result()) for poll in polls) == 50
    assert taken < 8


def test_a_long_poll_whose_client_has_gone_swallows_no_message(
    queue: RemoteQueue, endpoint_url: str
) -> None:
    """Amazon SQS at-least-once delivery (Developer Guide)"""
    for _ in range(3):
        with raw_connection(endpoint_url) as connection:
            connection.sendall(
                raw_request(endpoint_url, "ReceiveMessage", QueueUrl=queue.url, WaitTimeSeconds=5)
            )
            time.sleep(0.1)  # lets the poll begin; the check holds without it, and says less
    queue.send_many(["a", "b", "c"])

    assert sorted(bodies(queue.receive(wait=1))) == ["a", "b", "c"]


def test_eight_receivers_share_out_300_messages_without_a_double(
    queue: RemoteQueue, threads: ThreadPoolExecutor
) -> None:
    """Amazon SQS visibility timeout (Developer Guide)"""
    queue.send_many([str(number) for number in range(300)])

    def drain() -> list[Message]:
        received: list[Message] = []
        while found := queue.receive():
            received += found
        return received

    received = [
        message for work in [threads.submit(drain) for _ in range(8)] for message in work.result()
    ]

    assert sorted(map(int, bodies(received))) == list(range(300))


def test_a_quiet_tenant_overtakes_a_noisy_one(queue: RemoteQueue) -> None:
    """Amazon SQS fair queues (Developer Guide)"""
    queue.send_many(["noisy"] * 100, MessageGroupId="noisy")
    for _ in range(4):
        queue.receive()
    queue.send("quiet", MessageGroupId="quiet")

    assert bodies(queue.receive(most=1)) == ["quiet"]
