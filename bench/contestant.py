"""Async Jobs as a contestant: the commands a benchmark harness drives.

    init                             create the schema in the database of BENCH_DSN
    enqueue N CLIENTS MODE BASE      MODE single or bulk; prints {"n", "secs", "cpu"}
    paced RATE SECONDS BASE          one job every 1/RATE s; prints {"n", "secs"}
    worker                           prints READY, waits for a line on stdin, then works until
                                     SIGTERM: one scheduler process and one worker process
    scheduler, work                  the two processes of `worker`, each alone

The no-op handler appends 24 bytes (job number, time of enqueue, time of start)
to BENCH_REC.<pid>: starts are counted from files that survive kill -9, not from
what the library says of itself. BENCH_TRANSPORT chooses postgres or sqs.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from async_jobs import AsyncJobsConfig, JobService, JobStore, NewJob, create_pool
from async_jobs.registry import job_registry

DSN = os.environ.get("BENCH_DSN", "")
RECORD = os.environ.get("BENCH_REC", "bench-rec")
CONCURRENCY = os.environ.get("BENCH_CONC") or "500"
CAPACITY = os.environ.get("BENCH_CAP", "2000")
SLEEP_SECONDS = float(os.environ.get("BENCH_SLEEP", "0") or 0)
USE_CASES = (os.environ.get("BENCH_USE_CASES") or "bench").split(",")
BULK = 1_000
EARLIEST = b"READY\n"

_files: dict[int, int] = {}
_pack = struct.Struct("<qqq").pack


@job_registry.handler("noop")
async def noop(payload: dict[str, int]) -> None:
    """Note the start; sleep if asked to."""
    started_ns = time.time_ns()
    os.write(_record_file(), _pack(payload["i"], payload["t"], started_ns))
    if SLEEP_SECONDS:
        await asyncio.sleep(SLEEP_SECONDS)


def _record_file() -> int:
    pid = os.getpid()
    if pid not in _files:
        _files[pid] = os.open(f"{RECORD}.{pid}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    return _files[pid]


def environment(dsn: str = DSN) -> dict[str, str]:
    """What the product's own processes read."""
    env = os.environ | {
        "ASYNC_JOBS_DB_DSN": dsn,
        **{
            f"ASYNC_JOBS_{name.upper()}_MAX_CONCURRENT": str(int(CAPACITY) // len(USE_CASES))
            for name in USE_CASES
        },
        "ASYNC_JOBS_HANDLERS_MODULE": "bench.contestant",
        "ASYNC_JOBS_WORKER_CONCURRENCY": CONCURRENCY,
        "ASYNC_JOBS_LOG_LEVEL": os.environ.get("BENCH_LOG", "WARNING"),
        "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    }
    if long_poll := os.environ.get("BENCH_LONG_POLL", "2"):
        env["ASYNC_JOBS_WORKER_LONG_POLL_SECONDS"] = long_poll
    if os.environ.get("BENCH_TRANSPORT") == "sqs":
        env["ASYNC_JOBS_SQS_QUEUE_BENCH"] = os.environ["BENCH_QURL"]
        env["AWS_ENDPOINT_URL_SQS"] = os.environ["BENCH_SQS"]
        env |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        env["AWS_DEFAULT_REGION"] = "us-east-1"
    return env


def _job(number: int) -> NewJob:
    return NewJob(
        tenant_id="t1",
        use_case="bench",
        type="noop",
        payload={"i": number, "t": time.time_ns()},
    )


@asynccontextmanager
async def _service(connections: int) -> AsyncIterator[JobService]:
    config = AsyncJobsConfig.from_env(environment(), warn=lambda _: None)
    async with create_pool(config, max_size=connections) as pool:
        await pool.wait()
        yield JobService(config, JobStore(pool))


async def init() -> None:
    config = AsyncJobsConfig.from_env(environment(), warn=lambda _: None)
    async with create_pool(config) as pool:
        await JobStore(pool).init_schema()


async def enqueue(count: int, clients: int, mode: str, base: int) -> float:
    async with _service(clients) as service:
        await service.enqueue(_job(-1))
        began = time.perf_counter()
        if mode == "bulk":
            for first in range(base, base + count, BULK):
                last = min(first + BULK, base + count)
                await service.enqueue_many([_job(number) for number in range(first, last)])
        else:
            numbers = iter(range(base, base + count))
            await asyncio.gather(*[_enqueue_each(service, numbers) for _ in range(clients)])
        return time.perf_counter() - began


async def _enqueue_each(service: JobService, numbers: Any) -> None:
    for number in numbers:
        await service.enqueue(_job(number))


async def paced(rate: float, seconds: float, base: int) -> float:
    async with _service(4) as service, asyncio.TaskGroup() as tasks:
        await service.enqueue(_job(-1))
        await asyncio.sleep(0.3)
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.create_task(service.enqueue(_job(base + number)))
        return time.perf_counter() - began


def worker() -> None:
    """Scheduler and worker as two processes; ends both on SIGTERM."""
    env = environment()
    sys.stdout.write(EARLIEST.decode())
    sys.stdout.flush()
    sys.stdin.readline()
    # The worker first: nothing shall be leased long before it can start.
    commands = [["async_jobs.cli.worker"], ["async_jobs.cli.scheduler"]]
    children = [subprocess.Popen([sys.executable, "-m", *command], env=env) for command in commands]

    def stop(*_: object) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    for child in children:
        child.wait()


def _timed(work: Coroutine[Any, Any, float], count: int) -> None:
    seconds = asyncio.run(work)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"n": count, "secs": seconds, "cpu": used.ru_utime + used.ru_stime}))


def main(arguments: list[str]) -> None:
    match arguments:
        case ["init"]:
            asyncio.run(init())
        case ["enqueue", count, clients, mode, base]:
            _timed(enqueue(int(count), int(clients), mode, int(base)), int(count))
        case ["paced", rate, seconds, base]:
            jobs = int(float(rate) * float(seconds))
            _timed(paced(float(rate), float(seconds), int(base)), jobs)
        case ["worker"]:
            worker()
        case ["scheduler" | "work" as one]:
            module = f"async_jobs.cli.{one.replace('work', 'worker')}"
            command = [sys.executable, "-m", module]
            os.execve(sys.executable, command, environment())  # noqa: S606 - our own module
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
