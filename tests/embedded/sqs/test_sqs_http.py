"""Framing: keep-alive, pipelining, pieces, sizes, and what is refused."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from async_jobs.embedded.sqs import SqsServer

LIST = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n"


@pytest.fixture
def connection(server: SqsServer) -> Iterator[socket.socket]:
    with socket.create_connection((server.host, server.port), timeout=5) as opened:
        yield opened


def _read_until_closed(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def _request(more: bytes = b"", content: bytes = b"{}") -> bytes:
    return LIST + more + b"Content-Length: %d\r\n\r\n" % len(content) + content


def test_a_connection_is_kept_for_the_next_request(http) -> None:
    http.call("ListQueues", "{}")
    first = http.connection.sock
    http.call("ListQueues", "{}")

    assert http.connection.sock is first


def test_pipelined_requests_are_answered_in_order(connection, server: SqsServer, url) -> None:
    ask = ("POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.{}\r\nContent-Length: {}\r\n{}\r\n{}").format
    receive = json.dumps({"QueueUrl": url, "WaitTimeSeconds": 1})
    send = json.dumps({"QueueUrl": url, "MessageBody": "m"})
    connection.sendall(ask("ReceiveMessage", len(receive), "", receive).encode())
    connection.sendall(ask("SendMessage", len(send), "Connection: close\r\n", send).encode())
    answers = _read_until_closed(connection)

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert b"Messages" not in answers
    assert answers.endswith(b"}")
    assert server.messages("mail").visible == 1


def test_a_request_may_come_in_pieces(connection) -> None:
    for byte in _request(b"Connection: close\r\n"):
        connection.sendall(bytes([byte]))

    assert _read_until_closed(connection).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_waits_for_100_continue_gets_it(connection) -> None:
    connection.sendall(
        LIST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    )
    invited = connection.recv(100)
    connection.sendall(b"{}")

    assert invited.startswith(b"HTTP/1.1 100")
    assert _read_until_closed(connection).startswith(b"HTTP/1.1 200")


def test_a_client_is_invited_to_continue_once(connection) -> None:
    connection.sendall(
        LIST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    )
    received = connection.recv(100)
    for piece in (b"{", b"}"):
        connection.sendall(piece)

    assert (received + _read_until_closed(connection)).count(b"100 Continue") == 1


def test_http_1_0_is_answered_and_closed(connection) -> None:
    connection.sendall(_request().replace(b"HTTP/1.1", b"HTTP/1.0"))

    assert b"200 OK" in _read_until_closed(connection)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (LIST + b"no colon\r\n\r\n", b"400"),
        (LIST + b"Content-Length: many\r\n\r\n", b"400"),
        (LIST + b"Content-Length: 99999999\r\n\r\n", b"413"),
        (LIST + b"Transfer-Encoding: chunked\r\n\r\n", b"411"),
        (LIST + b"X: " + b"x" * 70_000, b"431"),
    ],
    ids=["no request", "no header", "no length", "too long", "chunked", "long head"],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    connection, request_bytes: bytes, status: bytes
) -> None:
    connection.sendall(request_bytes)

    assert _read_until_closed(connection).startswith(b"HTTP/1.1 " + status)


def test_content_that_is_no_json_object_is_refused(http) -> None:
    for content in ("[1]", "{", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        status, answer = http.call("ListQueues", content)

        assert (status, answer["__type"].partition("#")[2]) == (400, "SerializationException")


@pytest.mark.parametrize(
    "parameters",
    [
        {"QueueUrl": 1},
        {"QueueUrl": "URL", "MessageBody": ["m"]},
        {"QueueUrl": "URL", "MessageBody": "m", "DelaySeconds": "1"},
        {"QueueUrl": "URL", "MessageBody": "m", "DelaySeconds": True},
        {"QueueUrl": "URL", "MessageBody": "m", "MessageAttributes": [1]},
        {"QueueUrl": "URL", "MessageBody": "m", "MessageAttributes": {"a": 1}},
        {"QueueUrl": "URL", "MessageBody": "m", "MessageAttributes": {"a": {"DataType": 1}}},
    ],
    ids=str,
)
def test_a_parameter_of_a_wrong_type_is_refused(http, url: str, parameters: dict) -> None:
    status, answer = http.call("SendMessage", json.dumps(parameters).replace("URL", url))

    assert (status, answer["__type"].partition("#")[2]) == (400, "SerializationException")


def test_half_a_character_is_no_legal_message(http, url: str) -> None:
    content = json.dumps({"QueueUrl": url, "MessageBody": "half \ud800"})
    status, answer = http.call("SendMessage", content)

    assert (status, answer["__type"]) == (400, "com.amazonaws.sqs#InvalidMessageContents")


def test_an_unknown_operation_is_refused_with_those_there_are(http) -> None:
    status, answer = http.call("Dance", "{}")

    assert status == 404
    assert "SendMessageBatch" in answer["message"]


def test_the_queue_url_follows_the_host_that_the_client_used(http) -> None:
    _, answer = http.ask(
        "POST",
        "/",
        '{"QueueName": "mail"}',
        X_Amz_Target="AmazonSQS.CreateQueue",
        Host="sqs.example:1234",
    )

    assert answer["QueueUrl"] == "http://sqs.example:1234/000000000000/mail"
