"""The README's Quick Start from top to bottom: handlers, application, client, commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from doc_pages import Block, blocks, run

from async_jobs import AsyncJobsHttpClient
from async_jobs.schemas import JobView

TOKEN = "secret-token"


@pytest.mark.slow
async def test_the_quick_start_runs_from_the_handlers_to_a_succeeded_job(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNC_JOBS_DB_DSN", database)
    monkeypatch.setenv("ASYNC_JOBS_ENQUEUE_AUTH_TOKEN", TOKEN)
    package = tmp_path / "myapp"
    package.mkdir()
    (package / "job_handlers.py").write_text(_handlers().text, "utf-8")
    application = await run(_block("runs: app"))

    async with (
        _served(application["app"]) as url,
        _process("scheduler", "--init-db", "--log-level", "INFO"),
        _process("worker", path=tmp_path),
    ):
        job = await _enqueued_and_finished(url)

    assert job.status == "succeeded"
    assert job.result == {"status": "sent", "recipient": "user@example.com"}


def _block(marker: str) -> Block:
    (found,) = (block for block in blocks("python", marker) if block.page == "README.md")
    return found


def _handlers() -> Block:
    """The handlers of section 3: the block that registers send_notification."""
    return next(one for one in blocks("python", "runs") if "send_notification" in one.text)


async def _enqueued_and_finished(url: str) -> JobView:
    names = await run(_block("runs: client"), {"http://localhost:8000": url})
    client: AsyncJobsHttpClient = names["client"]
    async with client:
        return await client.wait(names["job_id"], timeout_seconds=60)


@contextlib.asynccontextmanager
async def _served(app: Any) -> AsyncIterator[str]:
    """The application on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True


@contextlib.asynccontextmanager
async def _process(command: str, *options: str, path: Path | None = None) -> AsyncIterator[None]:
    """The scheduler or the worker, asked to stop at the end."""
    env = {**os.environ, "ASYNC_JOBS_HANDLERS_MODULE": "myapp.job_handlers"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"async_jobs.cli.{command}",
        *options,
        env={**env, "PYTHONPATH": str(path or "")},
    )
    try:
        yield
    finally:
        process.terminate()
        code = await process.wait()
    assert code == 0
