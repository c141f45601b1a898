"""Requests read by httptools, with a bound that it lacks: on what comes before the content.

It hands a header over when it has come to its end, and keeps what it has until then: a caller
without a token could fill the memory with one header.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 16_384
"""As h11 has it. Of the piece of data that a head begins in, nothing counts."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not end."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, unless the head has become too long."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MOST_HEAD_BYTES and self._is_in_head():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """The head of a request begins."""
        self._head_bytes = 0
        super().on_message_begin()

    def _is_in_head(self) -> bool:
        # The method is put in with the rest at the end of the headers.
        return self.scope is not None and "method" not in self.scope
