"""The server as an object and as a process: start, look inside, move time, stop."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from async_jobs.embedded.sqs import Counts, Refused, SqsServer


async def _call(server: SqsServer, operation: str, **parameters: Any) -> dict[str, Any]:
    """One request on a connection of its own, from the loop that the server runs in."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    content = json.dumps(parameters).encode()
    head = f"POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.{operation}\r\nConnection: close\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content)
    try:
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def _until_waiting(server: SqsServer) -> None:
    while not server.waiting_receives():  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0)


async def test_a_server_shares_the_loop_of_its_test() -> None:
    async with SqsServer() as server:
        url = server.create_queue("mail", VisibilityTimeout=5)
        await _call(server, "SendMessageBatch", QueueUrl=url, Entries=[
            {"Id": "1", "MessageBody": "a"}, {"Id": "2", "MessageBody": "b", "DelaySeconds": 9}
        ])  # fmt: skip
        await _call(server, "ReceiveMessage", QueueUrl=url)

        assert server.messages("mail") == Counts(visible=0, in_flight=1, delayed=1)


async def test_time_moved_forward_ends_delays_and_wakes_long_polls() -> None:
    async with SqsServer() as server:
        url = server.create_queue("mail", DelaySeconds=900)
        await _call(server, "SendMessage", QueueUrl=url, MessageBody="later")
        async with asyncio.TaskGroup() as group:
            poll = group.create_task(
                _call(server, "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20)
            )
            await _until_waiting(server)
            server.advance(900)

        assert poll.result()["Messages"][0]["Body"] == "later"


async def test_a_poll_whose_client_has_gone_is_forgotten() -> None:
    async with SqsServer() as server:
        url = server.create_queue("mail")
        poll = asyncio.ensure_future(
            _call(server, "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20)
        )
        await _until_waiting(server)
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        await _call(server, "SendMessage", QueueUrl=url, MessageBody="kept")

        assert server.waiting_receives() == 0
        assert server.messages("mail") == Counts(visible=1, in_flight=0, delayed=0)


async def test_closing_answers_waiting_receives_with_nothing() -> None:
    server = SqsServer()
    await server.start()
    url = server.create_queue("mail")
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(_call(server, "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20))
        await _until_waiting(server)
        await server.close()

    assert poll.result() == {}


async def test_a_server_may_be_closed_twice() -> None:
    server = SqsServer()
    await server.start()
    await server.close()
    await server.close()


async def test_a_taken_port_is_an_os_error() -> None:
    async with SqsServer() as server:
        with pytest.raises(OSError, match="address"):
            await SqsServer(server.port).start()


def test_a_taken_port_is_an_os_error_for_a_server_in_a_thread(server: SqsServer) -> None:
    with pytest.raises(OSError, match="address"), SqsServer.in_thread(server.port):
        pass


def test_a_server_in_a_thread_ends_with_its_block() -> None:
    before = set(threading.enumerate())
    with SqsServer.in_thread():
        began = set(threading.enumerate()) - before

    assert len(began) == 1
    assert not began & set(threading.enumerate())


def test_a_refusal_reaches_the_thread_that_asked(server: SqsServer) -> None:
    with pytest.raises(Refused, match="QueueDoesNotExist"):
        server.messages("absent")


def test_a_new_server_is_empty(sqs, url: str) -> None:
    with SqsServer.in_thread() as other, pytest.raises(Refused):
        other.messages("mail")


def test_a_fifo_name_makes_a_fifo_queue(server: SqsServer, sqs) -> None:
    url = server.create_queue("steps.fifo", ContentBasedDeduplication="true")
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["FifoQueue"])

    assert told["Attributes"] == {"FifoQueue": "true"}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "async_jobs.embedded.sqs", "--queue", "mail", "--faults"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_prints_its_url_when_it_is_ready_and_ends_on_a_signal(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert process.stdout is not None
    endpoint_url = process.stdout.readline().strip()
    connection = HTTPConnection(endpoint_url.removeprefix("http://"), timeout=5)
    connection.request("GET", "/_faults")
    with connection.getresponse() as answer:
        told = json.loads(answer.read())
    connection.close()
    process.send_signal(number)

    assert told == {"seed": 0, "faults": []}
    assert process.wait(5) == 0
