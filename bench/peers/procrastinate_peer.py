"""Procrastinate (PostgreSQL, psycopg) as a contestant. Runs in an environment of its own."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import procrastinate  # type: ignore[import-not-found,unused-ignore] # not in our environment
import protocol  # type: ignore[import-not-found,unused-ignore] # beside the adapter

logging.getLogger("procrastinate").setLevel(logging.ERROR)
_concurrency = protocol.CONCURRENCY or 16
_app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=protocol.DSN, min_size=2, max_size=_concurrency + 4
    )
)


async def _noop(i: int, t: int) -> None:
    await protocol.note(i, t)


_task = _app.task(name="noop", queue="default")(_noop)


class ProcrastinateAdapter:
    """Its schema, its batch defer, its worker."""

    async def init(self) -> None:
        async with _app.open_async():
            await _app.schema_manager.apply_schema_async()

    @asynccontextmanager
    async def session(self, clients: int) -> AsyncIterator[protocol.Enqueue]:
        async with _app.open_async():

            async def enqueue(number: int) -> None:
                await _task.defer_async(i=number, t=time.time_ns())

            yield enqueue

    async def bulk(self, numbers: range) -> None:
        async with _app.open_async():
            for at in range(0, len(numbers), protocol.BULK):
                jobs = [{"i": i, "t": time.time_ns()} for i in numbers[at : at + protocol.BULK]]
                await _task.batch_defer_async(*jobs)

    def worker(self) -> None:
        protocol.gate()
        protocol.loop_run(_work())


async def _work() -> None:
    async with _app.open_async():
        await _app.run_worker_async(concurrency=_concurrency, name=f"worker-{os.getpid()}")


protocol.run(ProcrastinateAdapter())
