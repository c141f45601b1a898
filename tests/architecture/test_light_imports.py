"""What a process loads: nothing it does not use. Each case runs in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from source_tree import ROOT

HEAVY = {"psycopg", "boto3", "fastapi", "httpx2", "uvicorn", "pydantic", "typer", "rich"}
WEB = {"fastapi", "starlette", "httpx2", "uvicorn"}

PROCESS_WITHOUT_SQS = """
from async_jobs.assembly import (
    SqsClients, build_receivers, build_scheduler, build_worker, create_pool)
from async_jobs.config import AsyncJobsConfig
from async_jobs.registry import job_registry
from async_jobs.store.jobs import JobStore
from async_jobs.telemetry.bus import Bus

config = AsyncJobsConfig(db_dsn="postgresql://nobody@127.0.0.1:1/none")
store, clients, bus = JobStore(create_pool(config)), SqsClients({}), Bus()
build_scheduler(config, store, clients, bus=bus)
receivers = build_receivers("w", config, store, [], clients, bus=bus)
build_worker("w", config, store, job_registry, receivers, bus=bus)
"""


def test_importing_the_package_alone_loads_nothing_heavy() -> None:
    loaded = _packages_after("import async_jobs")

    assert loaded & HEAVY == set()


def test_public_names_load_on_first_use() -> None:
    loaded = _packages_after("import async_jobs; async_jobs.NewJob; async_jobs.Retry")

    assert loaded & HEAVY == set()


def test_handlers_can_be_written_without_a_driver_in_sight() -> None:
    loaded = _packages_after("from async_jobs.registry import job_registry")

    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    "modules",
    [
        "async_jobs.cli.worker, async_jobs.cli.process, async_jobs.worker.worker",
        "async_jobs.cli.scheduler, async_jobs.cli.process, async_jobs.scheduler.loop",
    ],
    ids=["worker", "scheduler"],
)
def test_a_worker_or_scheduler_never_loads_the_web_stack(modules: str) -> None:
    loaded = _packages_after(f"import {modules}, async_jobs.assembly")

    assert loaded & WEB == set()


def test_a_process_without_sqs_queues_never_loads_boto3() -> None:
    loaded = _packages_after(PROCESS_WITHOUT_SQS)

    assert "psycopg" in loaded
    assert loaded & (WEB | {"boto3", "botocore"}) == set()


def test_an_http_client_never_loads_a_driver_or_the_api() -> None:
    loaded = _packages_after("import async_jobs; async_jobs.AsyncJobsHttpClient")

    assert "httpx2" in loaded
    assert loaded & {"psycopg", "boto3", "fastapi"} == set()


def _packages_after(code: str) -> set[str]:
    """The top-level packages that a new interpreter has loaded after *code*."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}
