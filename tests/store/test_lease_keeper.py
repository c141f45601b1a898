"""The heartbeat's own line: connects when needed, again after a failure, never hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from moving_parts import POSTGRES_BIN
from psycopg.conninfo import make_conninfo

from async_jobs.ddl import get_ddl
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.errors import StoreUnavailable
from async_jobs.store.lease_keeper import LeaseKeeper
from async_jobs.testing import TcpProxy

from .factories import JobFactory

MakeKeeper = Callable[..., LeaseKeeper]


def keeper_pids(db: psycopg.Connection[Any]) -> list[int]:
    return [
        row[0]
        for row in db.execute(
            "SELECT pid FROM pg_stat_activity "
            "WHERE application_name = 'keeper' AND datname = current_database()"
        )
    ]


@pytest.mark.own_session
def test_it_connects_only_when_first_needed(
    db: psycopg.Connection[Any], make_keeper: MakeKeeper
) -> None:
    keeper = make_keeper()
    before = keeper_pids(db)
    keeper.extend({}, lease_seconds=5)
    keeper.extend({uuid4(): 1}, lease_seconds=5)

    assert (before, len(keeper_pids(db))) == ([], 1)


@pytest.mark.own_session
def test_it_connects_again_after_its_connection_was_cut(
    db: psycopg.Connection[Any], make_keeper: MakeKeeper
) -> None:
    keeper = make_keeper()
    keeper.extend({}, lease_seconds=5)
    db.execute("SELECT pg_terminate_backend(%s, 5000)", keeper_pids(db))
    with pytest.raises(StoreUnavailable, match="heartbeat cannot reach the database"):
        keeper.extend({}, lease_seconds=5)

    assert keeper.extend({}, lease_seconds=5) == {}


async def test_the_server_ends_its_wait_for_a_row_that_stays_locked(
    db: psycopg.Connection[Any],
    live_jobs: JobFactory,
    make_keeper: MakeKeeper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine the hanging up may come first.
    monkeypatch.setattr("async_jobs.store.lease_keeper._hung_up_after", lambda *_: nullcontext())
    job = await live_jobs.running()
    with db.transaction():
        db.execute("SELECT FROM jobs FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="QueryCanceled"):
            make_keeper(0.1).extend({job.id: 1}, lease_seconds=5)


async def test_it_works_in_a_thread_of_its_own(
    live_jobs: JobFactory, make_keeper: MakeKeeper
) -> None:
    job = await live_jobs.running()
    keeper = make_keeper()
    answers: list[dict[Any, bool]] = []
    thread = threading.Thread(
        target=lambda: answers.append(keeper.extend({job.id: 1}, lease_seconds=5))
    )
    thread.start()
    thread.join(timeout=10)

    assert answers == [{job.id: False}]


def test_a_server_that_is_not_there_is_told_as_unavailable() -> None:
    keeper = LeaseKeeper(
        "host=127.0.0.1 port=1 user=nobody", application_name="keeper", timeout_seconds=1
    )

    with pytest.raises(StoreUnavailable, match="OperationalError"):
        keeper.extend({}, lease_seconds=5)


def test_closing_twice_is_harmless(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper()
    keeper.extend({}, lease_seconds=5)
    keeper.close()

    keeper.close()


def test_a_server_that_has_gone_silent_is_hung_up_on() -> None:
    """Only the timer ends this wait: the proxy still acknowledges what is sent."""
    with (
        PostgresServer(settings="fast", bin_dir=POSTGRES_BIN) as server,
        TcpProxy.in_thread(server.port) as proxy,
    ):
        keeper = LeaseKeeper(
            make_conninfo(server.dsn, port=proxy.port),
            application_name="keeper",
            timeout_seconds=0.2,
        )
        with psycopg.connect(server.dsn) as conn:
            conn.execute(get_ddl())
        keeper.extend({}, lease_seconds=5)
        proxy.black_hole()

        with pytest.raises(StoreUnavailable, match="heartbeat cannot reach the database"):
            keeper.extend({}, lease_seconds=5)

        proxy.heal()
        assert keeper.extend({}, lease_seconds=5) == {}
        keeper.close()
