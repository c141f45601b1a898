"""PgQueuer (PostgreSQL, asyncpg) as a contestant. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-not-found,unused-ignore] # not in our environment
import protocol  # type: ignore[import-not-found,unused-ignore] # beside the adapter
from pgqueuer import PgQueuer  # type: ignore[import-not-found,unused-ignore] # nor this
from pgqueuer.db import (  # type: ignore[import-not-found,unused-ignore] # nor this
    AsyncpgDriver,
    AsyncpgPoolDriver,
)
from pgqueuer.queries import Queries  # type: ignore[import-not-found,unused-ignore] # nor this


def _payload(number: int) -> bytes:
    return json.dumps({"i": number, "t": time.time_ns()}).encode()


class PgQueuerAdapter:
    """Its queue table, its bulk enqueue, its worker on one connection."""

    async def init(self) -> None:
        conn = await asyncpg.connect(protocol.DSN)
        await Queries(AsyncpgDriver(conn)).install()
        await conn.close()

    @asynccontextmanager
    async def session(self, clients: int) -> AsyncIterator[protocol.Enqueue]:
        async with asyncpg.create_pool(protocol.DSN, min_size=clients, max_size=clients) as pool:
            queries = Queries(AsyncpgPoolDriver(pool))

            async def enqueue(number: int) -> None:
                await queries.enqueue("noop", _payload(number))

            yield enqueue

    async def bulk(self, numbers: range) -> None:
        conn = await asyncpg.connect(protocol.DSN)
        queries = Queries(AsyncpgDriver(conn))
        for at in range(0, len(numbers), protocol.BULK):
            payloads = [_payload(number) for number in numbers[at : at + protocol.BULK]]
            await queries.enqueue(["noop"] * len(payloads), payloads, [0] * len(payloads))
        await conn.close()

    def worker(self) -> None:
        protocol.gate()
        protocol.loop_run(_work())


async def _work() -> None:
    queuer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(protocol.DSN))

    async def noop(job: Any) -> None:
        facts = json.loads(job.payload)
        await protocol.note(facts["i"], facts["t"])

    queuer.entrypoint("noop")(noop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
    await queuer.run(batch_size=protocol.BATCH or 100)


protocol.run(PgQueuerAdapter())
