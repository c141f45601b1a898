"""The description's FastAPI and client snippets, run as files against real servers.

The application is the described one with its pool opened in a lifespan, because a pool can no
longer be made at module level. The client's snippet runs as it is written.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx2
import psycopg
import pytest

APPLICATION = """
from contextlib import asynccontextmanager

from fastapi import FastAPI
from async_jobs import create_jobs_router, JobService, JobStore, AsyncJobsConfig
from psycopg_pool import AsyncConnectionPool

# Initialize connection pool
config = AsyncJobsConfig.from_env()
db_pool = AsyncConnectionPool(conninfo=config.db_dsn, min_size=2, max_size=10, open=False)


@asynccontextmanager
async def lifespan(app):
    async with db_pool:
        yield


app = FastAPI(lifespan=lifespan)


# Factory function for job service
def get_job_service():
    store = JobStore(db_pool)
    return JobService(config, store)


# Add jobs router
jobs_router = create_jobs_router(
    job_service_factory=get_job_service,
    require_auth_token=True,
    expected_auth_token=config.enqueue_auth_token,
)
app.include_router(jobs_router)
"""

CLIENT = """
from async_jobs import AsyncJobsHttpClient
from datetime import datetime

client = AsyncJobsHttpClient(
    base_url="http://localhost:8000",
    auth_token="secret-token"
)

# Enqueue a job
job_id = await client.enqueue(
    tenant_id="tenant1",
    use_case="notifications",
    type="send_notification",
    queue="notifications",
    payload={
        "recipient": "user@example.com",
        "message": "Hello!"
    },
    delay_tolerance_seconds=60,
    max_attempts=3,
    backoff_policy={
        "type": "exponential",
        "base_delay_seconds": 60,
        "max_delay_seconds": 3600
    }
)
print(f"Enqueued job: {job_id}")
"""


@contextmanager
def serving(folder: Path, database: str) -> Iterator[str]:
    """The application under uvicorn, started as its users start it; its address."""
    (folder / "app.py").write_text(APPLICATION)
    variables = {"ASYNC_JOBS_DB_DSN": database, "ASYNC_JOBS_ENQUEUE_AUTH_TOKEN": "secret-token"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = str(listener.fileno())
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--fd", descriptor],
            cwd=folder,
            env=os.environ | variables,
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://localhost:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.slow
def test_the_described_application_and_client_enqueue_a_job(tmp_path: Path, database: str) -> None:
    with serving(tmp_path, database) as place:
        snippet = CLIENT.replace("http://localhost:8000", place)
        program = f"import asyncio\n\n\nasync def main():\n{textwrap.indent(snippet, '    ')}\n"
        (tmp_path / "producer.py").write_text(program + "\nasyncio.run(main())\n")
        done = subprocess.run(
            [sys.executable, "producer.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    with psycopg.connect(database) as conn:
        stored = conn.execute("SELECT id, tenant_id, payload->>'message' FROM jobs").fetchall()

    printed = re.fullmatch(r"Enqueued job: (\S+)\n", done.stdout)
    assert printed, done.stderr
    assert stored == [(UUID(printed.group(1)), "tenant1", "Hello!")]


@pytest.mark.slow
def test_the_described_application_asks_for_its_token(tmp_path: Path, database: str) -> None:
    with serving(tmp_path, database) as place:
        refused = httpx2.get(f"{place}/jobs/", timeout=30)

    assert refused.status_code == 401
