"""Handlers of the fault runs. Each start and each ending is one line in the file FAULT_RUNS.

A line is written by one `write` to a file opened for appending, so that no fault of a database
or a queue touches it and lines of several processes never mix. CLOCK_MONOTONIC is one clock for
all processes of the machine, whatever a fault does to the wall clock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from async_jobs.models import JobContext
from async_jobs.registry import job_registry

_runs = os.open(os.environ["FAULT_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(ctx: JobContext, event: str) -> None:
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    line = (
        f"{ctx.job_id} {ctx.lease_seq} {ctx.attempt} {os.getpid()} {event} {now:.6f} "
        f"{ctx.type} {ctx.queue}\n"
    )
    os.write(_runs, line.encode())


@contextmanager
def _noted(ctx: JobContext) -> Iterator[None]:
    _note(ctx, "start")
    try:
        yield
    except asyncio.CancelledError:
        _note(ctx, "cancelled")
        raise
    except BaseException:
        _note(ctx, "raise")
        raise
    _note(ctx, "end")


@job_registry.handler("work")
async def work(ctx: JobContext, payload: dict[str, Any]) -> None:
    """Takes `seconds`, and fails in its first `fails` attempts."""
    with _noted(ctx):
        if seconds := payload.get("seconds"):
            await asyncio.sleep(seconds)
        if ctx.attempt <= payload.get("fails", 0):
            raise ConnectionError("the other side hung up")


@job_registry.handler("hold")
async def hold(ctx: JobContext, payload: dict[str, str]) -> None:
    """Runs until the file `until` exists, or the one named for this attempt."""
    until = Path(payload.get(f"until_{ctx.attempt}") or payload["until"])
    with _noted(ctx):
        # Polled, because who lets go is another process.
        while not until.exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)


@job_registry.handler("block")
async def block(ctx: JobContext, payload: dict[str, float]) -> None:
    """Keeps the event loop for `seconds`, as a long computation does."""
    with _noted(ctx):
        time.sleep(payload["seconds"])  # noqa: ASYNC251 # that is the fault


@job_registry.handler("poison")
async def poison(ctx: JobContext, payload: dict[str, Any]) -> None:
    """Kills its worker, as running out of memory does."""
    with _noted(ctx):
        os.kill(os.getpid(), signal.SIGKILL)


@job_registry.handler("raises")
async def raises(ctx: JobContext, payload: dict[str, str]) -> None:
    """Ends in a way that no handler should, and leaves a stray asyncio task behind."""
    with _noted(ctx):
        _stray.add(asyncio.get_running_loop().create_task(asyncio.sleep(0.05)))
        match payload["what"]:
            case "SystemExit":
                sys.exit(3)
            case "KeyboardInterrupt":
                raise KeyboardInterrupt
            case "GeneratorExit":
                raise GeneratorExit
            case "CancelledError":
                raise asyncio.CancelledError
            case "BaseExceptionGroup":
                raise BaseExceptionGroup("both", [SystemExit(1), ValueError("x")])
            case "MemoryError":
                raise MemoryError


_stray: set[asyncio.Task[None]] = set()


@job_registry.handler("returns")
async def returns(ctx: JobContext, payload: dict[str, str]) -> object:
    """Returns what JSON cannot hold, or what the table should not."""
    with _noted(ctx):
        return _odd(payload["what"])


def _odd(what: str) -> object:
    circle: list[object] = []
    circle.append(circle)
    values: dict[str, object] = {
        "object": object(),
        "nan": float("nan"),
        "large": "x" * 20_000_000,
        "nul": "a\x00b",
        "surrogate": "\ud800",
        "circle": circle,
        "generator": (number for number in range(3)),
        "async generator": _numbers(),
        "bytes": b"\xff",
    }
    return values[what]


async def _numbers() -> AsyncIterator[int]:
    yield 1
