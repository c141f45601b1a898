"""The heartbeat's own line to PostgreSQL: one plain connection, used by one thread.

Apart from the pool on purpose. A handler that blocks the event loop, or a pool
whose connections all hang, must not keep the leases of other attempts from
being renewed. Blocking code, the only one in the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import psycopg

from async_jobs.errors import StoreUnavailable
from async_jobs.store.queries import query

CONNECT_TIMEOUT_SECONDS = 5
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
            with conn.transaction():
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
            self._conn = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                application_name=self._application_name,
                tcp_user_timeout=self._timeout_ms,
                prepare_threshold=self._prepare_threshold,
            )
        return self._conn
