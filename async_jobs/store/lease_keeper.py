"""The heartbeat's own line to PostgreSQL: one plain connection, used by one thread.

Apart from the pool on purpose. A handler that blocks the event loop, or a pool
whose connections all hang, must not keep the leases of other attempts from
being renewed. Blocking code, the only one in the library.

Every call ends in time. A server that lives ends a statement itself; one that has gone
silent is hung up on from a timer's thread, because nothing else ends a wait for it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import psycopg

from async_jobs.errors import StoreUnavailable
from async_jobs.store.pace import Pace
from async_jobs.store.queries import query

CONNECT_TIMEOUT_SECONDS = 3
_EXTEND = query("extend_attempts")
_BOUND = b"SELECT set_config('statement_timeout', %s, true)"


class LeaseKeeper:
    """Renews leases; connects when first needed and again after a failure."""

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str,
        timeout_seconds: float,
        prepare_threshold: int | None = 5,
    ) -> None:
        self._dsn = dsn
        self._prepare_threshold = prepare_threshold
        self._application_name = application_name
        self._timeout_ms = max(1, int(timeout_seconds * 1000))
        self._pace = Pace()
        self._conn: psycopg.Connection[tuple[UUID, bool]] | None = None

    def extend(self, held: Mapping[UUID, int], *, lease_seconds: float) -> dict[UUID, bool]:
        """Renew the leases *held* (job id → lease_seq) for *lease_seconds* from now.

        Gives each job that is still ours, and whether its cancel was asked for. Raises
        StoreUnavailable; the next call connects anew.
        """
        in_order = sorted(held.items())
        params = {
            "ids": [job_id for job_id, _ in in_order],
            "lease_seqs": [lease_seq for _, lease_seq in in_order],
            "lease_seconds": lease_seconds,
            "now": None,
        }
        try:
            conn = self._connection()
            # In a transaction, so that the time-out stays off a connection that a pooler shares.
            with _hung_up_after(self._timeout_ms / 1000 * 1.25, conn), conn.transaction():
                conn.execute(_BOUND, [str(self._timeout_ms)])
                return dict(conn.execute(_EXTEND, params).fetchall())
        except psycopg.Error as error:
            self.close()
            raise StoreUnavailable(
                f"The heartbeat cannot reach the database: {type(error).__name__}."
            ) from error

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _connection(self) -> psycopg.Connection[tuple[UUID, bool]]:
        if self._conn is None:
            self._conn = self._connected()
        return self._conn

    def _connected(self) -> psycopg.Connection[tuple[UUID, bool]]:
        if not self._pace.begin():
            raise psycopg.OperationalError("the last connect failed a moment ago")
        worked = False
        try:
            made = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                application_name=self._application_name,
                tcp_user_timeout=self._timeout_ms,
                prepare_threshold=self._prepare_threshold,
            )
            worked = True
            return made
        finally:
            self._pace.end(worked=worked)


@contextmanager
def _hung_up_after(seconds: float, conn: psycopg.Connection[Any]) -> Iterator[None]:
    """End what waits on *conn* by closing the line, if it takes longer than *seconds*."""
    guard = threading.Lock()
    over = False

    def hang_up() -> None:
        with guard:
            if not over:
                with socket.socket(fileno=os.dup(conn.fileno())) as line, suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with guard:
            over = True
