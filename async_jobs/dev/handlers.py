"""The handlers that `async-jobs dev` uses until it is given your own with --handlers.

A worker imports this module as it would import yours.
"""

from __future__ import annotations

from typing import Any

from async_jobs.models import JobContext
from async_jobs.registry import job_registry


@job_registry.handler("hello")
async def hello(ctx: JobContext, payload: dict[str, Any]) -> dict[str, object]:
    """Greet `payload["name"]`."""
    return {"greeting": f"Hello, {payload.get('name', 'world')}!", "attempt": ctx.attempt}
