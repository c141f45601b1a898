"""The control endpoints: faults and wipes for tests in another process."""

from __future__ import annotations

import json
from http.client import HTTPConnection

import pytest

from async_jobs.embedded.sqs import SqsServer


def test_faults_put_over_http_are_switched_on(server: SqsServer, http, sqs, url) -> None:
    wanted = {"seed": 3, "faults": [{"kind": "lose", "count": 1, "queue": "mail"}]}
    status, _ = http.ask("PUT", "/_faults", json.dumps(wanted))
    for _ in range(2):
        sqs.send_message(QueueUrl=url, MessageBody="m")
    _, told = http.ask("GET", "/_faults")

    assert status == 200
    assert server.messages("mail").visible == 1
    assert told["seed"] == 3
    assert [(one["kind"], one["seen"], one["fired"]) for one in told["faults"]] == [("lose", 2, 1)]


def test_faults_deleted_over_http_are_off(server: SqsServer, http) -> None:
    server.faults.add("throttle")
    _, told = http.ask("DELETE", "/_faults")

    assert told["faults"] == []
    assert not server.faults


def test_a_wipe_loses_every_message_and_keeps_the_queues(server: SqsServer, http, sqs, url) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="m")
    http.ask("POST", "/_wipe")

    assert server.messages("mail").visible == 0
    assert sqs.get_queue_url(QueueName="mail")["QueueUrl"] == url


def test_a_handle_from_before_a_wipe_deletes_no_later_message(server: SqsServer, sqs, url) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="before")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    server.wipe("mail")
    sqs.send_message(QueueUrl=url, MessageBody="after")
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    assert server.messages("mail").visible == 1


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        '{"faults": 1}',
        '{"seed": "x"}',
        '{"faults": [{"probability": 1}]}',
        '{"faults": [{"kind": "unheard of"}]}',
        '{"faults": [{"kind": "lose", "colour": 1}]}',
        '{"faults": [{"kind": "lose", "probability": "x"}]}',
        '{"faults": [{"kind": "lose", "probability": 2}]}',
    ],
)
def test_faults_that_cannot_be_read_are_refused_and_change_nothing(
    server: SqsServer, http, content: str
) -> None:
    server.faults.add("throttle")
    status, answer = http.ask("PUT", "/_faults", content)

    assert status == 400
    assert answer["error"]
    assert server.faults


def test_another_method_is_refused(http) -> None:
    assert http.ask("POST", "/_faults")[0] == 405


def test_a_server_without_faults_has_no_control_endpoints() -> None:
    with SqsServer.in_thread() as plain:
        connection = HTTPConnection(plain.host, plain.port, timeout=5)
        connection.request("POST", "/_wipe")
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()

    assert answer.status == 404
    assert told["__type"].endswith("#UnknownOperationException")
