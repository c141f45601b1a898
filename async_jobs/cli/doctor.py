"""`async-jobs doctor`: what is wrong with the configuration, the database, the processes.

Prints what was found, what is needed and what to do: the server and its upkeep, what holds dead
rows back, SQS queues and what this process may do with them, who is alive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from async_jobs.cli.command import run_command
from async_jobs.cli.service import AsJson
from async_jobs.runtime.signals import exit_on_term

REACHED_WITHIN_SECONDS = 5.0

if TYPE_CHECKING:
    from async_jobs.config import AsyncJobsConfig
    from async_jobs.core.checkup import Finding
    from async_jobs.core.queue_checkup import QueueSeen
    from async_jobs.store.jobs import JobStore


def doctor(as_json: AsJson = False) -> None:
    """Look the whole system over: found, needed, do this.

    Exit code 0: all is well. 1: something is not. 2: the configuration cannot be used, or the
    database cannot be reached.
    """
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(as_json))


async def _run(as_json: bool) -> None:
    from async_jobs.assembly import create_pool
    from async_jobs.cli.process import read_config
    from async_jobs.errors import ConfigError
    from async_jobs.store.jobs import JobStore

    config, _ = read_config(None)
    pool = create_pool(config, application_name="async-jobs-doctor", max_size=1)
    try:
        await pool.open(wait=True, timeout=REACHED_WITHIN_SECONDS)
    except Exception as error:
        await pool.close(timeout=1.0)
        text = "ASYNC_JOBS_DB_DSN: no connection within 5 s; is the server up and reachable?"
        raise ConfigError([text]) from error
    try:
        found = await _findings(config, JobStore(pool))
    finally:
        await pool.close(timeout=2.0)
    typer.echo(json.dumps([asdict(each) for each in found]) if as_json else told(found))
    if not all(each.is_well for each in found):
        raise typer.Exit(1)


async def _findings(config: AsyncJobsConfig, store: JobStore) -> Sequence[Finding]:
    from async_jobs.core.checkup import findings
    from async_jobs.core.queue_checkup import queue_findings
    from async_jobs.store.migrate import latest_version

    examined = await store.steering.examine()
    needed = latest_version()
    found = findings(
        examined,
        needed_schema=needed,
        prepares=config.prepare_threshold is not None,
        alive=await _alive(store) if examined.schema_version >= needed else {},
    )
    for seen in await _queues(config):
        found += queue_findings(
            seen,
            dispatch_lease_seconds=config.dispatch_lease_seconds,
            visibility_seconds=config.worker_visibility_timeout_seconds,
        )
    return found


async def _queues(config: AsyncJobsConfig) -> Sequence[QueueSeen]:
    """Every SQS queue, asked at the same time; boto3 is loaded only where there is one."""
    from async_jobs.assembly import SqsClients

    places = {name: each.sqs_queue_url for name, each in config.use_cases.items()}
    if not any(places.values()):
        return []
    from async_jobs.transport.queue_checkup import examine_queue

    clients = SqsClients({})
    try:
        return await asyncio.gather(
            *[
                examine_queue(clients.client_for(url), url, use_case=name)
                for name, url in places.items()
                if url
            ]
        )
    finally:
        clients.close()


async def _alive(store: JobStore) -> Mapping[str, int]:
    from async_jobs.core.overrides import alive

    return alive(await store.steering.find_processes())


def told(found: Sequence[Finding]) -> str:
    """A line for each finding; where it is not well, what is needed and below it what to do."""
    lines = []
    for each in found:
        if each.is_well:
            lines.append(f"ok  {each.name}: {each.found}")
        else:
            lines.append(f"BAD {each.name}: {each.found}; needed: {each.needed}")
            lines.append(f"    do this: {each.remedy}")
    return "\n".join(lines)


def main() -> None:
    """For `python -m async_jobs.cli.doctor`."""
    exit_on_term()
    run_command(doctor)


if __name__ == "__main__":
    main()
