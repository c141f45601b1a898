"""Handlers of the flows. Each run appends a line to FLOW_RUNS: job id, attempt, process id."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from async_jobs.models import JobContext
from async_jobs.registry import job_registry


def _ran(ctx: JobContext) -> None:
    line = f"{ctx.job_id} {ctx.attempt} {os.getpid()}\n"
    # One write to a file opened for appending: lines of several processes never mix.
    runs = os.open(os.environ["FLOW_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(runs, line.encode())
    os.close(runs)


@job_registry.handler("note")
async def note(ctx: JobContext, payload: dict[str, Any]) -> dict[str, Any]:
    _ran(ctx)
    ctx.log.info("noted %s", payload.get("n"))
    await asyncio.sleep(payload.get("takes_seconds", 0.0))
    return {"n": payload.get("n"), "attempt": ctx.attempt}


@job_registry.handler("flaky")
async def flaky(ctx: JobContext, payload: dict[str, Any]) -> dict[str, int]:
    _ran(ctx)
    if ctx.attempt < payload["succeeds_at"]:
        raise ConnectionError("the other side hung up")
    return {"attempt": ctx.attempt}


@job_registry.handler("fragile")
async def fragile(ctx: JobContext, payload: dict[str, str]) -> str:
    """Fails until the file `works` exists."""
    _ran(ctx)
    if not Path(payload["works"]).exists():  # noqa: ASYNC240 # a look, not a wait
        raise ConnectionError("the other side is down")
    return "works"


@job_registry.handler("hold")
async def hold(ctx: JobContext, payload: dict[str, str]) -> str:
    """Runs until the file `until` exists."""
    _ran(ctx)
    # Polled, because who lets go is another process.
    while not Path(payload["until"]).exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.01)
    return "let go"


@job_registry.handler("hold_thread")
def hold_thread(ctx: JobContext, payload: dict[str, str]) -> str:
    """The same as a plain function, which nothing can interrupt."""
    _ran(ctx)
    while not Path(payload["until"]).exists():
        time.sleep(0.01)
    return "let go"


@job_registry.handler("block")
async def block(ctx: JobContext, payload: dict[str, str]) -> str:
    """Blocks the event loop until the file `until` exists."""
    return hold_thread(ctx, payload)


@job_registry.handler("stubborn")
async def stubborn(ctx: JobContext, payload: dict[str, str]) -> str:
    """Ignores every interruption."""
    _ran(ctx)
    while not Path(payload["until"]).exists():  # noqa: ASYNC240 # a look, not a wait
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue
    return "let go"


@job_registry.handler("parent")
async def parent(ctx: JobContext, payload: dict[str, Any]) -> str:
    _ran(ctx)
    enqueued = await ctx.enqueue("note", {"n": "child"})
    return str(enqueued.job_id)
