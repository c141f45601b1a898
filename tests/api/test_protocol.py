"""Requests are read fast, and what a caller without a token may send is bounded."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from socket import IPPROTO_TCP, TCP_NODELAY, create_connection
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from async_jobs.api import app
from async_jobs.api.protocol import MOST_HEAD_BYTES, BoundedProtocol
from async_jobs.cli.api import listening_on

HEAD = b"POST /jobs/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def protocol(wire: Wire) -> AsyncIterator[BoundedProtocol]:
    over = asyncio.Event()

    async def wait(scope: object, receive: object, send: object) -> None:
        await over.wait()

    config, state = uvicorn.Config(wait, log_config=None), ServerState()
    config.load()
    made = BoundedProtocol(config=config, server_state=state, app_state={})
    made.connection_made(wire)
    yield made
    over.set()
    await asyncio.gather(*state.tasks)


async def test_a_header_without_end_is_refused(wire: Wire, protocol: BoundedProtocol) -> None:
    protocol.data_received(b"POST /jobs/enqueue HTTP/1.1\r\nX-Long: ")
    for _ in range(MOST_HEAD_BYTES // 1_024):
        protocol.data_received(b"x" * 1_024)
    assert not wire.closed

    protocol.data_received(b"x")

    assert wire.closed
    assert wire.written.startswith(b"HTTP/1.1 400 ")


async def test_headers_without_end_are_refused(wire: Wire, protocol: BoundedProtocol) -> None:
    protocol.data_received(b"POST /jobs/enqueue HTTP/1.1\r\n")
    for _ in range(MOST_HEAD_BYTES // 16 + 1):
        protocol.data_received(b"X-Header: 12345\r\n")

    assert wire.closed


async def test_content_does_not_count(wire: Wire, protocol: BoundedProtocol) -> None:
    content = b"x" * (4 * MOST_HEAD_BYTES)
    protocol.data_received(HEAD % len(content))
    protocol.data_received(content + HEAD[:10])
    protocol.data_received(HEAD[10:] % 0)

    assert not wire.closed
    assert not wire.written


def test_without_httptools_requests_are_read_by_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    assert app._protocol() is BoundedProtocol

    monkeypatch.setitem(sys.modules, "httptools", None)
    monkeypatch.delitem(sys.modules, "uvicorn.protocols.http.httptools_impl")
    monkeypatch.delitem(sys.modules, "async_jobs.api.protocol")

    assert app._protocol() == "h11"


def test_an_answer_in_two_parts_waits_for_nobody() -> None:
    """The accepted socket has TCP_NODELAY; else the second part waits for an acknowledgement."""
    with listening_on("127.0.0.1", 0) as listener, create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(IPPROTO_TCP, TCP_NODELAY)
