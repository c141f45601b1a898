"""A scheduler that stops in the middle of its turn loses the turn, and survives that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from moving_parts import open_store, until
from psycopg.conninfo import make_conninfo

from async_jobs.errors import StoreUnavailable
from async_jobs.models import Leased
from async_jobs.store import turn as turns
from async_jobs.store.jobs import JobStore

from .factories import JobFactory, new_job

PAUSE_SECONDS = 0.1


@pytest.fixture
def stopped(database: str) -> str:
    """The connection string of the scheduler that stops."""
    return make_conninfo(database, application_name="stopped")


@pytest.fixture
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_PAUSE_SECONDS", PAUSE_SECONDS)


def sessions(db: psycopg.Connection[Any]) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stopped'"
    found = db.execute(sql).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.usefixtures("short_pause")
async def test_the_server_ends_a_turn_that_pauses_and_gives_it_to_another(
    jobs: JobFactory, stopped: str, db: psycopg.Connection[Any]
) -> None:
    await jobs.waiting()
    meanwhile: list[Sequence[Leased]] = []

    async def paused(store: JobStore) -> None:
        async with store.take_turn("mail") as turn:
            assert turn is not None
            await turn.lease_due(1, lease_seconds=60)
            await until(lambda: sessions(db) == 0, what="its session is ended")
            meanwhile.append(await jobs.lease())
            await turn.count_in_flight()

    async with open_store(stopped, size=1) as store:
        with pytest.raises(StoreUnavailable, match="IdleInTransaction"):
            await paused(store)
        assert [len(leased) for leased in meanwhile] == [1]

        # It goes on with another connection.
        await store.enqueue([new_job()])
        async with store.take_turn("mail") as turn:
            assert turn is not None
            assert len(await turn.lease_due(1, lease_seconds=60)) == 1


@pytest.mark.usefixtures("short_pause")
@pytest.mark.own_session
async def test_a_lease_of_a_paused_turn_never_commits(
    jobs: JobFactory, stopped: str, db: psycopg.Connection[Any]
) -> None:
    await jobs.waiting()

    async def paused(store: JobStore) -> None:
        async with store.take_turn("mail") as turn:
            assert turn is not None
            await turn.lease_due(1, lease_seconds=60)
            await until(lambda: sessions(db) == 0, what="its session is ended")

    async with open_store(stopped, size=1) as store:
        with pytest.raises(StoreUnavailable):
            await paused(store)

    assert db.execute("SELECT due, lease_seq FROM jobs").fetchall() == [(True, 0)]


async def test_the_bound_ends_with_the_turn(stopped: str) -> None:
    async with open_store(stopped, size=1) as store:
        async with store.take_turn("mail") as turn:
            assert turn is not None
            inside = await shown(turn.conn)
        async with store._door.transaction() as conn:
            assert await shown(conn) == "0"
    assert inside == "2500ms"


async def shown(conn: psycopg.AsyncConnection[Any]) -> str:
    cursor = await conn.execute("SHOW idle_in_transaction_session_timeout")
    found = await cursor.fetchone()
    assert found is not None
    return str(found[0])
