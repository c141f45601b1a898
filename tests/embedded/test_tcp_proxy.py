"""The proxy passes on what it gets, and does to a connection what it is told, and no more."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from async_jobs.embedded.tcp_proxy import TcpProxy

SOON_SECONDS = 0.2
PATIENCE_SECONDS = 5.0


class Echo:
    """Answers each chunk with itself, and keeps what it got."""

    def __init__(self) -> None:
        self.got = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(conn)
            threading.Thread(target=self._answer, args=(conn,), daemon=True).start()

    def _answer(self, conn: socket.socket) -> None:
        with conn:
            try:
                while chunk := conn.recv(65_536):
                    self.got += chunk
                    conn.sendall(chunk)
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()
    for conn in server.open:
        conn.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy.in_thread(echo.port) as made:
        yield made


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[socket.socket]:
    with connected(proxy) as made:
        yield made


def connected(proxy: TcpProxy) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_SECONDS)
    made.settimeout(PATIENCE_SECONDS)
    return made


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(65_536)


def hears_nothing(client: socket.socket) -> bool:
    client.settimeout(SOON_SECONDS)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE_SECONDS)
    return False


def until_got(echo: Echo, text: bytes) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while text not in echo.got:
        assert time.monotonic() < deadline, f"the server never got {text!r}"
        time.sleep(0.005)


def test_it_passes_on_both_ways(client: socket.socket) -> None:
    assert ask(client, b"hello") == b"hello"


def test_a_delay_holds_each_way(proxy: TcpProxy, client: socket.socket) -> None:
    ask(client, b"warm")
    proxy.delay(0.1)
    began = time.monotonic()

    ask(client, b"slow")

    assert time.monotonic() - began >= 0.2


def test_a_black_hole_swallows_nothing_for_good(
    proxy: TcpProxy, client: socket.socket, echo: Echo
) -> None:
    ask(client, b"warm")
    proxy.black_hole()
    client.sendall(b"lost?")

    assert hears_nothing(client)
    assert b"lost?" not in echo.got
    proxy.heal()
    assert client.recv(100) == b"lost?"


def test_a_new_connection_into_a_black_hole_is_accepted_and_silent(proxy: TcpProxy) -> None:
    proxy.black_hole()
    with connected(proxy) as client:
        client.sendall(b"hello")

        assert hears_nothing(client)


def test_a_one_way_hole_lets_the_request_through(
    proxy: TcpProxy, client: socket.socket, echo: Echo
) -> None:
    proxy.black_hole("to_client")
    client.sendall(b"work")

    until_got(echo, b"work")
    assert hears_nothing(client)


def test_a_hole_may_concern_only_those_who_sent_something(
    proxy: TcpProxy, client: socket.socket
) -> None:
    proxy.black_hole("to_client", sent=b"LISTEN")
    with connected(proxy) as other:
        client.sendall(b"LISTEN jobs")

        assert ask(other, b"SELECT") == b"SELECT"
        assert hears_nothing(client)


def test_a_reset_ends_open_connections_and_lets_new_ones_in(
    proxy: TcpProxy, client: socket.socket
) -> None:
    ask(client, b"warm")
    proxy.reset()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connected(proxy) as other:
        assert ask(other, b"again") == b"again"


def test_a_reset_may_strike_again(proxy: TcpProxy) -> None:
    proxy.reset(sent=b"LISTEN", again=True)
    for _ in range(2):
        with connected(proxy) as client, pytest.raises(ConnectionResetError):
            ask(client, b"LISTEN jobs")
    with connected(proxy) as other:
        assert ask(other, b"SELECT") == b"SELECT"


def test_refused_connections_are_refused_until_it_heals(
    proxy: TcpProxy, client: socket.socket
) -> None:
    ask(client, b"warm")
    proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    assert ask(client, b"goes on") == b"goes on"
    proxy.heal()
    with connected(proxy) as other:
        assert ask(other, b"back") == b"back"


def test_a_cut_reply_is_lost_after_the_work_was_done(
    proxy: TcpProxy, client: socket.socket, echo: Echo
) -> None:
    proxy.cut_replies(b"COMMIT")
    assert ask(client, b"BEGIN") == b"BEGIN"

    with pytest.raises(ConnectionResetError):
        ask(client, b"COMMIT")
    assert echo.got.endswith(b"COMMIT")
    assert proxy.cuts == 1


def test_only_as_many_replies_are_cut_as_were_asked_for(proxy: TcpProxy) -> None:
    proxy.cut_replies(b"COMMIT", b"UPDATE", count=2)
    for text in (b"COMMIT", b"UPDATE"):
        with connected(proxy) as client, pytest.raises(ConnectionResetError):
            ask(client, text)
    with connected(proxy) as client:
        assert ask(client, b"COMMIT") == b"COMMIT"


def test_a_server_that_is_away_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as away:
        port = away.getsockname()[1]
    with TcpProxy.in_thread(port) as proxy, connected(proxy) as client:
        assert client.recv(1) == b""


def test_nothing_is_left_when_clients_have_gone(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        ask(client, b"hello")
        assert proxy.connections == 1
    deadline = time.monotonic() + PATIENCE_SECONDS
    while proxy.connections and time.monotonic() < deadline:
        time.sleep(0.005)

    assert proxy.connections == 0
