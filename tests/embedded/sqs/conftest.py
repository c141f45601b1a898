"""A local SQS server for each test, a boto3 client for it, and a bare HTTP client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import boto3
import pytest
from botocore.config import Config

from async_jobs.embedded.sqs import SqsServer


@pytest.fixture
def server() -> Iterator[SqsServer]:
    with SqsServer.in_thread(faults=True, seed=7) as running:
        yield running


@contextmanager
def _client(server: SqsServer, read_timeout: float) -> Iterator[Any]:
    client = boto3.client(
        "sqs",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout),
    )
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def sqs(server: SqsServer) -> Iterator[Any]:
    """A client that tries once."""
    with _client(server, 30) as client:
        yield client


@pytest.fixture
def impatient(server: SqsServer) -> Iterator[Any]:
    """A client that tries once and soon gives up waiting for the answer."""
    with _client(server, 0.3) as client:
        yield client


@pytest.fixture
def url(server: SqsServer) -> str:
    """The URL of a queue called mail."""
    return server.create_queue("mail")


class Http:
    """One keep-alive connection to the server."""

    def __init__(self, server: SqsServer) -> None:
        self.connection = HTTPConnection(server.host, server.port, timeout=5)

    def ask(
        self, method: str, path: str, content: str = "", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer; underscores in header names are hyphens."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.connection.request(method, path, content.encode(), named)
        with self.connection.getresponse() as answer:
            return answer.status, json.loads(answer.read())

    def call(self, operation: str, content: str) -> tuple[int, dict[str, Any]]:
        return self.ask("POST", "/", content, X_Amz_Target=f"AmazonSQS.{operation}")


@pytest.fixture
def http(server: SqsServer) -> Iterator[Http]:
    client = Http(server)
    yield client
    client.connection.close()
