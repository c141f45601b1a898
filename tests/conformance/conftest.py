"""Which server the checks run against, and queues on it.

By default it is our own, in a thread of this process. `scripts/sqs-conformance`
runs the same checks against other servers: it sets SQS_CONFORMANCE_ENDPOINT, and
SQS_CONFORMANCE_SERVER to the server's name in `deviations.json`. A check listed
there for the server must fail, or (with "sometimes") may.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from conformance_table import deviations
from remote_queue import REGION, RemoteQueue, new_name

from async_jobs.embedded.sqs import SqsServer

SERVER = os.environ.get("SQS_CONFORMANCE_SERVER", "ours")
THREADS = 60

NewQueue = Callable[..., RemoteQueue]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    expected = deviations().get(SERVER, {})
    for item in items:
        deviation = expected.get(item.name)
        if deviation is not None and item.path.parent.name == "conformance":
            item.add_marker(
                # Another server's deviations are listed one by one, each with its page; our own has
                # none. A strict mark fails as soon as the server behaves.
                pytest.mark.xfail(
                    reason=deviation["does"], strict=not deviation.get("sometimes", False)
                )
            )


@pytest.fixture(scope="session")
def endpoint_url() -> Iterator[str]:
    given = os.environ.get("SQS_CONFORMANCE_ENDPOINT")
    if given:
        yield given
        return
    with SqsServer.in_thread() as server:
        yield server.endpoint_url


@pytest.fixture(scope="session")
def sqs(endpoint_url: str) -> Iterator[Any]:
    client = boto3.client(
        "sqs",
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(
            retries={"total_max_attempts": 1}, read_timeout=20, max_pool_connections=THREADS
        ),
    )
    yield client
    client.close()


@pytest.fixture
def new_queue(sqs: Any) -> Iterator[NewQueue]:
    """Makes queues with the given attributes; they are deleted after the test."""
    made: list[RemoteQueue] = []

    def make(**attributes: str) -> RemoteQueue:
        name = new_name(".fifo" if "FifoQueue" in attributes else "")
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        made.append(RemoteQueue(sqs, url))
        return made[-1]

    yield make
    for queue in made:
        with suppress(ClientError):
            sqs.delete_queue(QueueUrl=queue.url)


@pytest.fixture
def queue(new_queue: NewQueue) -> RemoteQueue:
    return new_queue()


@pytest.fixture
def fifo(new_queue: NewQueue) -> RemoteQueue:
    return new_queue(FifoQueue="true")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool
