"""Celery over SQS as a contestant. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import protocol  # type: ignore[import-not-found,unused-ignore] # beside the adapter
from celery import Celery  # type: ignore[import-not-found,unused-ignore] # not in our environment

_SQS = os.environ.get("BENCH_SQS", "")
_app = Celery("bench", broker=f"sqs://x:x@{_SQS.removeprefix('http://')}/")
_app.conf.update(
    broker_transport_options={
        "region": "us-east-1",
        "is_secure": False,
        "wait_time_seconds": 5,
        "polling_interval": 0,
        "endpoint_url": _SQS,
        "predefined_queues": {
            "celery": {
                "url": os.environ.get("BENCH_QURL", ""),
                "access_key_id": "x",
                "secret_access_key": "x",
            }
        },
    },
    broker_connection_retry_on_startup=True,
    task_default_queue="celery",
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=protocol.BATCH or 50,
    worker_send_task_events=False,
)
_task = _app.task(name="noop")(protocol.note_blocking)


class CeleryAdapter:
    """Its blocking client in threads, its prefork worker."""

    async def init(self) -> None:
        """The queue exists already."""

    @asynccontextmanager
    async def session(self, clients: int) -> AsyncIterator[protocol.Enqueue]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(clients) as threads:

            async def enqueue(number: int) -> None:
                await loop.run_in_executor(
                    threads, lambda: _task.apply_async((number, time.time_ns()))
                )

            yield enqueue

    async def bulk(self, numbers: range) -> None:
        left = iter(numbers)
        async with self.session(8) as enqueue:
            await asyncio.gather(*[protocol.each(enqueue, left) for _ in range(8)])

    def worker(self) -> None:
        protocol.gate()
        quiet = ["--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        concurrency = f"--concurrency={protocol.CONCURRENCY or 2}"
        _app.worker_main(["worker", *quiet, "--pool=prefork", concurrency])


protocol.run(CeleryAdapter())
