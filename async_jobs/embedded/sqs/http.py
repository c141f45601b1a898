"""Just enough HTTP/1.1 for an SQS client: framing, keep-alive, pipelining.

A connection reads one request at a time and gives it to the handler with a
`Reply`; the handler answers at once or later. A request that arrives while the
one before is unanswered waits in the buffer. When the client goes away before
its answer, the reply's `on_gone` is called. No timeouts here: an idle connection
costs nothing, and a server that closed it could cut off the next request.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

MOST_HEAD_BYTES = 65_536
MOST_CONTENT_BYTES = 16 * 1_048_576

_NO_LINGER = struct.pack("ii", 1, 0)
_HEAD_END = b"\r\n\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """One complete request; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes


class BadRequest(Exception):
    """What arrived is not a request this server can read; *status* answers it."""

    def __init__(self, status: HTTPStatus) -> None:
        self.status = status
        super().__init__(status.phrase)


class Reply:
    """The one answer to a request; only the first call of `send` or `reset` counts."""

    __slots__ = ("_connection", "_is_last", "on_gone")

    def __init__(self, connection: Connection, *, is_last: bool) -> None:
        self._connection: Connection | None = connection
        self._is_last = is_last
        self.on_gone: Callable[[], None] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether the client is still there, as far as the system has told."""
        return self._connection is not None and self._connection.is_open

    def send(
        self, status: int, content: bytes, content_type: str, headers: Mapping[str, str] = {}
    ) -> None:
        """Write the answer and go on with the next request."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        lines = [
            f"HTTP/1.1 {status} {_REASONS.get(status, '')}",
            f"x-amzn-RequestId: {uuid.uuid4()}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(content)}",
        ]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        if self._is_last:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1")
        connection.answered(head + _HEAD_END + content, is_last=self._is_last)

    def reset(self) -> None:
        """Break the connection without an answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def gone(self) -> None:
        """The client has gone: nothing will be sent."""
        self._connection = None
        if self.on_gone is not None:
            self.on_gone()


Handler = Callable[[Request, Reply], None]


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, handle: Handler, known: set[Connection]) -> None:
        self._handle = handle
        self._known = known
        self._buffer = bytearray()
        self._reply: Reply | None = None
        self._transport: asyncio.Transport | None = None
        self._is_continued = False

    @property
    def is_open(self) -> bool:
        # A transport is closing as soon as the client's end was read, a turn before it is lost.
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._known.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._known.discard(self)
        self._transport = None
        if self._reply is not None:
            self._reply.gone()
            self._reply = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read_requests()
        if len(self._buffer) > MOST_HEAD_BYTES + MOST_CONTENT_BYTES:
            self.abort()

    def answered(self, answer: bytes, *, is_last: bool) -> None:
        """Called by the reply: write *answer*, then read on or close."""
        self._reply = None
        if self._transport is None:
            return
        self._transport.write(answer)
        if is_last:
            self._transport.close()
        elif self._buffer:
            # Not at once: an answer given inside the handler is still in _read_requests.
            asyncio.get_running_loop().call_soon(self._read_requests)

    def close(self) -> None:
        """End the connection after what was answered has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Reset the connection; the client sees a reset, not an end."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()

    def _read_requests(self) -> None:
        while self._reply is None and self._transport is not None:
            try:
                request = self._next_request()
            except BadRequest as bad:
                self._buffer.clear()
                self._reply = Reply(self, is_last=True)
                self._reply.send(bad.status, bad.status.phrase.encode(), "text/plain")
                return
            if request is None:
                return
            is_last = request.headers.get("connection", "").lower() == "close"
            self._reply = reply = Reply(self, is_last=is_last)
            self._handle(request, reply)

    def _next_request(self) -> Request | None:
        """The next complete request of the buffer, or None until more has come."""
        buffer = self._buffer
        head_end = buffer.find(_HEAD_END)
        if head_end < 0:
            if len(buffer) > MOST_HEAD_BYTES:
                raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        method, path, headers = _read_head(buffer[:head_end].decode("latin-1"))
        start = head_end + len(_HEAD_END)
        end = start + _content_length(headers)
        if len(buffer) < end:
            self._continue(headers)
            return None
        content = bytes(buffer[start:end])
        del buffer[:end]
        self._is_continued = False
        return Request(method, path, headers, content)

    def _continue(self, headers: Mapping[str, str]) -> None:
        if headers.get("expect", "").lower() == "100-continue" and not self._is_continued:
            self._is_continued = True
            if self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _read_head(head: str) -> tuple[str, str, dict[str, str]]:
    lines = head.split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, text = line.partition(":")
        if not colon:
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        headers[name.lower()] = text.strip()
    if parts[2] == "HTTP/1.0":
        headers["connection"] = "close"
    return parts[0], parts[1], headers


def _content_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(HTTPStatus.LENGTH_REQUIRED)
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if int(text) > MOST_CONTENT_BYTES:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return int(text)
