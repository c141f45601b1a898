"""Handlers of the proofs: jobs that take a given time and leave nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

from async_jobs.models import JobContext
from async_jobs.registry import job_registry


@job_registry.handler("nap")
async def nap(ctx: JobContext, payload: dict[str, Any]) -> None:
    """Sleeps for `seconds`, if there are any."""
    if seconds := payload.get("seconds"):
        await asyncio.sleep(seconds)
