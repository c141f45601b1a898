"""PgBouncer in transaction mode, for tests that want sessions shared."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

_PATIENCE_SECONDS = 10.0


@contextmanager
def pooler(dsn: str, folder: Path, *, sessions: int = 4) -> Iterator[str]:
    """A pooler before the server of *dsn*: its connection string, to the same database.

    Any other database of that server can be reached through it too, by its name.
    """
    server = conninfo_to_dict(dsn)
    port = _free_port()
    # An emptied pool is closed soon: tests make and drop databases by the hundred.
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n"
        f"* = {_told(server, 'host', 'port', 'user', 'password')}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {sessions}\nmax_client_conn = 1000\n"
        "unix_socket_dir =\nserver_idle_timeout = 5\nautodb_idle_timeout = 30\n"
        "server_login_retry = 1\nserver_lifetime = 5\n"
    )
    folder.chmod(0o755)
    settings.chmod(0o644)
    log = (folder / "pgbouncer.log").open("wb")
    command = ["pgbouncer", "-q", str(settings)]
    with log, subprocess.Popen(command, stderr=log, stdout=log, **_account()) as process:
        try:
            _wait_until_open(port)
            yield f"postgresql://postgres@127.0.0.1:{port}/{server['dbname']}"
        finally:
            process.terminate()


def _told(server: dict[str, Any], *names: str) -> str:
    return " ".join(f"{name}={server[name]}" for name in names if server.get(name))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _account() -> dict[str, Any]:
    """PgBouncer refuses to run as root."""
    return {"user": "nobody"} if os.geteuid() == 0 else {}


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.02)
        else:
            return
