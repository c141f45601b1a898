"""`async-jobs cancel` and `async-jobs requeue`: the two moves that operators make by hand.

They go to the database directly, as a scheduler does, and need no API. Exit code 0: the move was
made. 1: it was not, because there is no such job, its state does not allow it, or the database
cannot be reached. 2: the command line or the configuration cannot be used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from getpass import getuser
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from async_jobs.models import Job
    from async_jobs.service import JobService

    Move = Callable[[JobService], Awaitable[Job]]

JobId = Annotated[UUID, typer.Argument(metavar="ID", help="The job's id, as enqueue gave it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the job as the HTTP API answers it.")]


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a pending job at once; ask a running one to end at its next heartbeat."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(lambda service: service.cancel(job_id, actor=operator()), as_json))


def requeue(
    job_id: JobId,
    attempts: Annotated[
        int, typer.Option(min=1, max=1_000, help="How many more attempts it gets.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Put a finished job back, due now."""
    from async_jobs.cli.process import run_process

    run_process(
        lambda: _run(
            lambda service: service.requeue(job_id, more_attempts=attempts, actor=operator()),
            as_json,
        )
    )


def operator() -> str:
    """Who calls, for the log: the name of this machine's user, if it has one."""
    try:
        return f"cli:{getuser()}"
    except (KeyError, OSError):
        return "cli"


async def _run(move: Move, as_json: bool) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config
    from async_jobs.service import JobService

    config, bus = read_config(None)
    name = process_name("async-jobs-operator")
    async with opened(config, name=name, init_db=False, connections=1) as (store, _):
        job = await move(JobService(config, store, bus=bus))
    typer.echo(as_text(job) if as_json else told(job))


def as_text(job: Job) -> str:
    """The same JSON as `GET /jobs/{job_id}` answers."""
    from async_jobs.schemas import JobView

    return JobView.model_validate(job).model_dump_json()


def told(job: Job) -> str:
    """What became of *job*, in a line."""
    if job.status.is_finished:
        return f"Job {job.id} is {job.status}: it will not run."
    if job.cancel_requested_at is not None:
        return f"Job {job.id} runs; its worker ends it at its next heartbeat."
    return f"Job {job.id} waits to run, with {job.max_attempts - job.attempts} attempts."
