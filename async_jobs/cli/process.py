"""What the scheduler's and the worker's process have in common: start, listen, stop, exit.

start   open the pool (30 s at most), create or check the schema
run     the service, and beside it a listener for hints that may die without harm
stop    the first SIGTERM or SIGINT asks politely, the next one hurries
exit    0 after a stop, 1 when it could not start, 2 for a configuration that cannot be used
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, NoReturn

from async_jobs import failpoints
from async_jobs.assembly import SqsClients, create_pool
from async_jobs.config import AsyncJobsConfig
from async_jobs.errors import AsyncJobsError, ConfigError, StoreUnavailable
from async_jobs.runtime.loop import Loop
from async_jobs.store.hints import HintListener
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.logs import configure, log_event

START_TIMEOUT_SECONDS = 30.0
RECONNECT_SECONDS = 4.0
"""For so long the pool tries by itself; after that, whoever needs a connection starts it anew."""
LAST_WAIT_SECONDS = 0.2
HANDLER_THREADS = "async-jobs-handler"


def run_process(main: Callable[[], Awaitable[None]]) -> None:
    """Run *main* to its end and leave, even if a handler never returns."""
    code = asyncio.run(_exit_code(main))
    if _busy_threads():
        _leave_now(code)
    logging.shutdown()
    sys.exit(code)


async def _exit_code(main: Callable[[], Awaitable[None]]) -> int:
    try:
        await main()
        code = 0
    except ConfigError as error:
        code = _told(error, 2)
    except AsyncJobsError as error:
        code = _told(error, 1)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=LAST_WAIT_SECONDS)
    if left or _busy_threads(HANDLER_THREADS):
        # asyncio.run would wait for them, however long they take.
        _leave_now(code)
    return code


def _told(error: AsyncJobsError, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 # the command's own words
    return code


def _busy_threads(prefix: str = "") -> bool:
    """Whether a thread of this name that Python would wait for is still there in a moment."""
    until = time.monotonic() + LAST_WAIT_SECONDS
    ours = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
        and not thread.daemon
        and thread.name.startswith(prefix)
    ]
    for thread in ours:
        thread.join(max(0.0, until - time.monotonic()))
    return any(thread.is_alive() for thread in ours)


def _leave_now(code: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def threads_for_handlers(concurrency: int) -> Iterator[None]:
    """Plain functions run in threads of their own, one for each attempt.

    Those still busy at the end are left behind. The few more threads are for look-ups of host
    names, which use the same pool: a reconnect must not wait for a handler.
    """
    threads = ThreadPoolExecutor(concurrency + 4, thread_name_prefix=HANDLER_THREADS)
    asyncio.get_running_loop().set_default_executor(threads)
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def read_config(log_level: str | None) -> tuple[AsyncJobsConfig, Bus]:
    """The configuration from the environment, with logging set up; raises ConfigError."""
    config = AsyncJobsConfig.from_env()
    if log_level is not None:
        config = with_option(config, "--log-level", log_level=log_level.upper())
    configure(config.log_level, log_format=config.log_format)
    failpoints.arm(config.failpoints)
    return config, Bus(log_event)


def with_option(config: AsyncJobsConfig, option: str, **value: Any) -> AsyncJobsConfig:
    """*config* with one setting as the command line has it; raises ConfigError that names it."""
    try:
        return replace(config, **value)
    except ConfigError as error:
        problems = [f"{option}: {each.partition(': ')[2]}" for each in error.problems]
        raise ConfigError(problems) from None


@asynccontextmanager
async def opened(
    config: AsyncJobsConfig, *, name: str, init_db: bool, connections: int
) -> AsyncIterator[tuple[JobStore, SqsClients]]:
    """The store on an open pool with a schema that fits, and a place for SQS clients."""
    pool = create_pool(config, application_name=name, max_size=connections)
    clients = SqsClients({})
    try:
        try:
            await pool.open(wait=True, timeout=START_TIMEOUT_SECONDS)
        except Exception as error:
            raise StoreUnavailable(
                f"No connection to PostgreSQL within {START_TIMEOUT_SECONDS:g} s. "
                "Check ASYNC_JOBS_DB_DSN and that the server is up and reachable."
            ) from error
        # Its pauses double until it gives up, and after a long outage the next try is far away.
        pool.reconnect_timeout = RECONNECT_SECONDS
        store = JobStore(pool)
        await (store.init_schema() if init_db else store.check_schema())
        # What was imported stays. Walking it again and again cost a worker a quarter of its time.
        gc.freeze()
        yield store, clients
    finally:
        clients.close()
        await pool.close(timeout=2.0)


@asynccontextmanager
async def listening(listener: HintListener | None, *, bus: Bus) -> AsyncIterator[None]:
    """Hints come in while inside; their loss is told and costs nothing else."""
    if listener is None:
        yield
        return
    loop = Loop("hint listener", listener.tick, bus=bus)
    task = asyncio.get_running_loop().create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await listener.close()
