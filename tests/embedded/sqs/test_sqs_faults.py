"""Each fault does what it says, where it is told to and as often."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
)

from async_jobs.embedded.sqs import Fault, Kind, SqsServer

ENTRIES = [{"Id": str(number), "MessageBody": f"m{number}"} for number in range(10)]


def _error_of(call: Any, **parameters: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def _receive(sqs: Any, url: str) -> list[dict[str, Any]]:
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return answer.get("Messages", [])


def test_a_throttled_request_is_refused_and_changes_nothing(server: SqsServer, sqs, url) -> None:
    server.faults.add("throttle")

    assert _error_of(sqs.send_message, QueueUrl=url, MessageBody="m") == ("RequestThrottled", 403)
    assert server.messages("mail").visible == 0


def test_throttling_may_answer_with_another_error(server: SqsServer, sqs, url) -> None:
    server.faults.add("throttle", error="ThrottlingException")

    assert _error_of(sqs.send_message, QueueUrl=url, MessageBody="m") == (
        "ThrottlingException",
        400,
    )


def test_a_server_error_is_a_503(server: SqsServer, sqs, url) -> None:
    server.faults.add("server_error")

    assert _error_of(sqs.send_message, QueueUrl=url, MessageBody="m") == ("ServiceUnavailable", 503)


def test_a_fault_with_a_count_ends_by_itself(server: SqsServer, sqs, url) -> None:
    server.faults.add("throttle", count=1)
    _error_of(sqs.send_message, QueueUrl=url, MessageBody="m")
    sqs.send_message(QueueUrl=url, MessageBody="m")

    assert server.faults.fired("throttle") == 1
    assert server.messages("mail").visible == 1


def test_a_fault_with_a_skip_lets_the_first_requests_through(server: SqsServer, sqs, url) -> None:
    server.faults.add("throttle", skip=1)
    sqs.send_message(QueueUrl=url, MessageBody="m")

    assert _error_of(sqs.send_message, QueueUrl=url, MessageBody="m")[0] == "RequestThrottled"


def test_a_fault_of_one_queue_leaves_the_others_alone(server: SqsServer, sqs, url) -> None:
    other = server.create_queue("other")
    server.faults.add("throttle", queue="mail")
    sqs.send_message(QueueUrl=other, MessageBody="m")

    assert _error_of(sqs.send_message, QueueUrl=url, MessageBody="m")[0] == "RequestThrottled"


def test_a_fault_of_one_operation_leaves_the_others_alone(server: SqsServer, sqs, url) -> None:
    server.faults.add("throttle", operations=["ReceiveMessage"])
    sqs.send_message(QueueUrl=url, MessageBody="m")

    assert _error_of(sqs.receive_message, QueueUrl=url)[0] == "RequestThrottled"


def test_access_is_denied_to_everything_not_allowed(server: SqsServer, sqs, url) -> None:
    server.faults.add("access_denied", allow=["SendMessage"])
    sqs.send_message(QueueUrl=url, MessageBody="m")

    assert _error_of(sqs.list_queues) == ("AccessDenied", 403)


def test_a_partial_failure_fails_entries_alone(server: SqsServer, sqs, url) -> None:
    server.faults.add("partial_failure", count=3)
    answer = sqs.send_message_batch(QueueUrl=url, Entries=ENTRIES)

    assert len(answer["Successful"]) == 7
    assert {(one["Code"], one["SenderFault"]) for one in answer["Failed"]} == {
        ("InternalError", False)
    }
    assert server.messages("mail").visible == 7


def test_a_lost_message_is_accepted_and_never_seen(server: SqsServer, sqs, url) -> None:
    server.faults.add("lose", count=4)
    answer = sqs.send_message_batch(QueueUrl=url, Entries=ENTRIES)

    assert len(answer["Successful"]) == 10
    assert server.messages("mail").visible == 6


def test_a_duplicated_message_is_received_twice_under_one_id(server: SqsServer, sqs, url) -> None:
    server.faults.add("duplicate", count=1)
    sent = sqs.send_message(QueueUrl=url, MessageBody="m")
    received = _receive(sqs, url)

    assert [sent["MessageId"]] * 2 == [message["MessageId"] for message in received]
    assert len({message["ReceiptHandle"] for message in received}) == 2


def test_reordered_messages_all_arrive(server: SqsServer, sqs, url) -> None:
    server.faults.add("reorder")
    for _ in range(3):
        sqs.send_message_batch(QueueUrl=url, Entries=ENTRIES)
    received = [message["Body"] for _ in range(3) for message in _receive(sqs, url)]
    expected = [entry["MessageBody"] for entry in ENTRIES] * 3

    assert received != expected
    assert sorted(received) == sorted(expected)


def test_an_ignored_delete_is_acknowledged_and_the_message_comes_back(
    server: SqsServer, sqs, url
) -> None:
    server.faults.add("ignore_delete")
    sqs.send_message(QueueUrl=url, MessageBody="m")
    (message,) = _receive(sqs, url)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    server.advance(30)

    assert [message["Body"] for message in _receive(sqs, url)] == ["m"]


def test_a_delayed_request_takes_effect_late(server: SqsServer, sqs, url) -> None:
    server.faults.add("delay", seconds=0.1, most_seconds=0.2)
    began = time.monotonic()
    sqs.send_message(QueueUrl=url, MessageBody="m")

    assert time.monotonic() - began > 0.09
    assert server.messages("mail").visible == 1


def test_a_delayed_request_whose_client_gave_up_has_no_effect(
    server: SqsServer, impatient, url
) -> None:
    server.faults.add("delay", seconds=0.8)
    with pytest.raises(ReadTimeoutError):
        impatient.send_message(QueueUrl=url, MessageBody="m")
    time.sleep(0.7)  # past the moment at which it would have happened

    assert server.messages("mail").visible == 0


def test_a_request_that_hangs_is_never_answered(server: SqsServer, impatient, url) -> None:
    server.faults.add("hang")

    with pytest.raises(ReadTimeoutError):
        impatient.send_message(QueueUrl=url, MessageBody="m")


def test_a_reset_request_has_no_effect(server: SqsServer, sqs, url) -> None:
    server.faults.add("reset")
    with pytest.raises(ConnectionClosedError):
        sqs.send_message(QueueUrl=url, MessageBody="m")

    assert server.messages("mail").visible == 0


def test_a_send_reset_after_its_effect_has_taken_effect(server: SqsServer, sqs, url) -> None:
    server.faults.add("after_send_reset", count=1)
    with pytest.raises(ConnectionClosedError):
        sqs.send_message_batch(QueueUrl=url, Entries=ENTRIES)

    assert server.messages("mail").visible == 10


def test_receives_can_lose_their_answer_too(server: SqsServer, sqs, url) -> None:
    server.faults.add("after_send_reset", operations=["ReceiveMessage"])
    sqs.send_message(QueueUrl=url, MessageBody="m")
    with pytest.raises(ConnectionClosedError):
        _receive(sqs, url)

    assert server.messages("mail").in_flight == 1


def test_cleared_faults_are_over(server: SqsServer, sqs, url) -> None:
    server.faults.add("throttle")
    server.faults.add("lose")
    server.faults.clear("throttle")
    sqs.send_message(QueueUrl=url, MessageBody="m")
    server.faults.clear()
    sqs.send_message(QueueUrl=url, MessageBody="m")

    assert server.messages("mail").visible == 1


def test_the_same_seed_gives_the_same_faults() -> None:
    runs = []
    for _ in range(2):
        faults = SqsServer(seed=42).faults
        faults.add("throttle", probability=0.5)
        runs.append([faults.gate("SendMessage", "q").refusal is not None for _ in range(100)])

    assert runs[0] == runs[1]
    assert 20 < sum(runs[0]) < 80


def test_another_fault_does_not_change_what_a_seed_gives() -> None:
    runs = []
    for others in (0, 1):
        faults = SqsServer(seed=42).faults
        faults.add("throttle", probability=0.5)
        for _ in range(others):
            faults.add("lose", probability=0.5)
        drawn = []
        for _ in range(50):
            drawn.append(faults.gate("SendMessage", "q").refusal is not None)
            faults.fires(Kind.LOSE, "SendMessage", "q")
        runs.append(drawn)

    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"probability": 1.5},
        {"seconds": -1.0},
        {"seconds": 2.0, "most_seconds": 1.0},
        {"error": "?"},
    ],
    ids=str,
)
def test_a_fault_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is"):
        Fault(kind=Kind.DELAY, **wrong)
