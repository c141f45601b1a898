"""What the scheduler's and the worker's process have in common: start, listen, stop, exit.

start   open the pool (30 s at most), create or check the schema; a signal ends it here at once
run     the service, and beside it a listener for hints that may die without harm, and a thread
        that watches over it all
stop    the first SIGTERM or SIGINT asks politely, the next one hurries; when the time is over
        the process leaves, whatever hangs
exit    0 after a stop, 1 when it could not start, 2 for a configuration that cannot be used,
        3 when it could not work for too long
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NoReturn

from async_jobs import failpoints
from async_jobs.assembly import SqsClients, create_pool
from async_jobs.config import AsyncJobsConfig
from async_jobs.errors import AsyncJobsError, ConfigError, StoreUnavailable
from async_jobs.runtime.health import Health
from async_jobs.runtime.loop import Loop
from async_jobs.runtime.signals import leave_on_term, on_stop
from async_jobs.runtime.watch import Watch, watching
from async_jobs.store.hints import HintListener
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import HandlerStuck, HealthServed
from async_jobs.telemetry.logs import configure, log_event

START_TIMEOUT_SECONDS = 30.0
RECONNECT_SECONDS = 4.0
"""For so long the pool tries by itself; after that, whoever needs a connection starts it anew."""
LAST_WAIT_SECONDS = 0.2
STOP_SECONDS = 6.0
"""How long the end may take beyond the grace, where everything that is waited for hangs."""
HANDLER_THREADS = "async-jobs-handler"

Options = Mapping[str, tuple[str, Any]]
_NO_OPTIONS: Options = MappingProxyType({})


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
def threads_for_handlers(concurrency: int, *, bus: Bus) -> Iterator[None]:
    """Plain functions run in threads of their own, one for each attempt.

    Those still busy at the end are left behind. The few more threads are for look-ups of host
    names, which use the same pool: a reconnect must not wait for a handler. A stuck handler may
    keep its thread for ever, so from then on there are new threads for all the others.
    """
    pools: list[ThreadPoolExecutor] = []

    def renew() -> None:
        pools.append(ThreadPoolExecutor(concurrency + 4, thread_name_prefix=HANDLER_THREADS))
        asyncio.get_running_loop().set_default_executor(pools[-1])
        for old in pools[:-1]:
            old.shutdown(wait=False)
        del pools[:-1]

    renew()
    bus.subscribe(lambda event: renew() if isinstance(event, HandlerStuck) else None)
    try:
        yield
    finally:
        pools[-1].shutdown(wait=False, cancel_futures=True)


def read_config(
    log_level: str | None, options: Options = _NO_OPTIONS
) -> tuple[AsyncJobsConfig, Bus]:
    """The configuration from the environment, with logging set up; raises ConfigError.

    What *options* say goes before: each names a setting, and its value or None.
    """
    config = AsyncJobsConfig.from_env()
    if log_level is not None:
        config = with_option(config, "--log-level", log_level=log_level.upper())
    for option, (setting, value) in options.items():
        if value is not None:
            config = with_option(config, option, **{setting: value})
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
    config: AsyncJobsConfig, *, name: str, init_db: bool, connections: int, bus: Bus | None = None
) -> AsyncIterator[tuple[JobStore, SqsClients]]:
    """The store on an open pool with a schema that fits, and a place for SQS clients."""
    pool = create_pool(config, application_name=name, max_size=connections)
    clients = SqsClients({}, bus or Bus())
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


@contextmanager
def watched(
    config: AsyncJobsConfig, role: str, name: str, *, interval_seconds: float, bus: Bus
) -> Iterator[Watch]:
    """A thread watches the process from its start to its end; raises ConfigError for the port."""
    leave_on_term()
    health = Health(interval_seconds=interval_seconds, give_up_seconds=config.give_up_seconds)
    port = None
    if config.health_port is not None:
        port = _health_port(config.health_host, config.health_port)
        place = f"http://{config.health_host}:{port.getsockname()[1]}"
        bus.emit(HealthServed(place=place))
    with watching(Watch(role, name, health, bus=bus, leave=_leave_now, port=port)) as watch:
        yield watch


def _health_port(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            [f"ASYNC_JOBS_HEALTH_PORT: {error.strerror}; choose another port, or 0 for a free one"]
        ) from error


def stop_when_asked(watch: Watch, stop: Callable[[], None], *, grace_seconds: float = 0.0) -> None:
    """The first signal calls *stop*, and the next ones too; the watch sees to it that it ends."""
    left = [grace_seconds, 0.0]

    def at_once() -> None:
        watch.leave_within(left.pop(0) + STOP_SECONDS if left else 0.0)

    on_stop(stop, at_once=at_once)


@asynccontextmanager
async def listening(listener: HintListener | None, *, bus: Bus) -> AsyncIterator[None]:
    """Hints come in while inside; their loss is told and costs nothing else."""
    if listener is None:
        yield
        return
    try:
        async with Loop("hint listener", listener.tick, bus=bus).running():
            yield
    finally:
        await listener.close()
