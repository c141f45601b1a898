"""The harness's protocol for adapters of other libraries. Standard library only.

Every adapter of this folder ends with `run(Adapter())`; `bench/README.md` describes
the commands and the environment. It measures nothing but how long enqueues take.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

DSN = os.environ.get("BENCH_DSN", "")
RECORD = os.environ.get("BENCH_REC", "bench-rec")
CONCURRENCY = int(os.environ.get("BENCH_CONC") or 0)
BATCH = int(os.environ.get("BENCH_BATCH") or 0)
SLEEP_SECONDS = float(os.environ.get("BENCH_SLEEP") or 0)
BULK = 1_000

Enqueue = Callable[[int], Awaitable[None]]

_files: dict[int, int] = {}
_pack = struct.Struct("<qqq").pack


class Adapter(Protocol):
    """What an adapter must be able to do."""

    async def init(self) -> None:
        """Create the schema, if there is one."""

    def session(self, clients: int) -> AbstractAsyncContextManager[Enqueue]:
        """A client that enqueues one job, *clients* at once."""

    async def bulk(self, numbers: range) -> None:
        """Enqueue all of *numbers*, at most 1,000 in one call, by the fastest public way."""

    def worker(self) -> None:
        """Call `gate`, then work until SIGTERM."""


def record(number: int, enqueued_ns: int) -> None:
    """Note a start: the job's number, when it was enqueued, and now."""
    pid = os.getpid()
    if pid not in _files:
        _files.clear()
        _files[pid] = os.open(f"{RECORD}.{pid}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(_files[pid], _pack(number, enqueued_ns, time.time_ns()))


async def note(number: int, enqueued_ns: int) -> None:
    """What an async handler does."""
    record(number, enqueued_ns)
    if SLEEP_SECONDS:
        await asyncio.sleep(SLEEP_SECONDS)


def note_blocking(number: int, enqueued_ns: int) -> None:
    """What a blocking handler does."""
    record(number, enqueued_ns)
    if SLEEP_SECONDS:
        time.sleep(SLEEP_SECONDS)


def gate() -> None:
    """Say READY and wait until all workers may begin."""
    print("READY", flush=True)
    sys.stdin.readline()


def loop_run(work: Coroutine[object, object, None]) -> None:
    """Run *work*, on uvloop where the adapter's environment has it."""
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore] # not in our environment
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def run(adapter: Adapter) -> None:
    """Do what the command line asks."""
    match sys.argv[1:]:
        case ["init"]:
            loop_run(adapter.init())
        case ["enqueue", count, _, "bulk", base]:
            loop_run(_bulk(adapter, range(int(base), int(base) + int(count))))
        case ["enqueue", count, clients, _, base]:
            loop_run(_singly(adapter, range(int(base), int(base) + int(count)), int(clients)))
        case ["paced", rate, seconds, base]:
            loop_run(_paced(adapter, float(rate), float(seconds), int(base)))
        case ["worker"]:
            adapter.worker()
        case _:
            sys.exit("init | enqueue N CLIENTS MODE BASE | paced RATE SECONDS BASE | worker")


async def _bulk(adapter: Adapter, numbers: range) -> None:
    began = time.perf_counter()
    await adapter.bulk(numbers)
    _report(len(numbers), began)


async def _singly(adapter: Adapter, numbers: range, clients: int) -> None:
    async with adapter.session(clients) as enqueue:
        await enqueue(-1)  # opens the connection
        began = time.perf_counter()
        left = iter(numbers)
        await asyncio.gather(*[each(enqueue, left) for _ in range(clients)])
        _report(len(numbers), began)


async def each(enqueue: Enqueue, numbers: Iterator[int]) -> None:
    """One client of several that share *numbers*."""
    for number in numbers:
        await enqueue(number)


async def _paced(adapter: Adapter, rate: float, seconds: float, base: int) -> None:
    async with adapter.session(4) as enqueue, asyncio.TaskGroup() as tasks:
        await enqueue(-1)
        await asyncio.sleep(0.3)
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.create_task(_one(enqueue, base + number))
        _report(int(rate * seconds), began)


async def _one(enqueue: Enqueue, number: int) -> None:
    await enqueue(number)


def _report(count: int, began: float) -> None:
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"n": count, "secs": seconds, "cpu": used.ru_utime + used.ru_stime}))
