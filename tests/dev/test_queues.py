"""Queues on an endpoint that was given with --sqs-endpoint."""

from __future__ import annotations

import pytest

from async_jobs.dev.ground import free_port
from async_jobs.dev.queues import create_queues
from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.errors import ConfigError, TransportError


def test_queues_are_created_and_found_again() -> None:
    with SqsServer.in_thread() as server:
        first = create_queues(server.endpoint_url, ["mail", "labels"])
        second = create_queues(server.endpoint_url, ["mail"])

    assert first.keys() == {"mail", "labels"}
    assert second["mail"] == first["mail"]


def test_a_refused_queue_is_told() -> None:
    with (
        SqsServer.in_thread() as server,
        pytest.raises(TransportError, match=r"could not be created.*400"),
    ):
        create_queues(server.endpoint_url, ["no such name!"])


def test_an_endpoint_that_does_not_answer_is_told() -> None:
    with pytest.raises(TransportError, match="no SQS server answered"):
        create_queues(f"http://127.0.0.1:{free_port()}", ["mail"])


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4566", "ftp://127.0.0.1", ""])
def test_an_endpoint_that_is_no_url_is_told(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        create_queues(endpoint, ["mail"])


def test_queues_at_aws_are_never_created() -> None:
    with pytest.raises(ConfigError, match="create them"):
        create_queues("https://sqs.eu-west-1.amazonaws.com", ["mail"])
