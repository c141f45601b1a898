"""Commands that ask or tell the job service: opened on the database, used once, closed.

They go to the database directly, as a scheduler does, and need no API. Exit code 0: it was done.
1: it was not, because there is no such job, its state does not allow it, or the database cannot be
reached. 2: the command line or the configuration cannot be used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from getpass import getuser
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from async_jobs.service import JobService

    Act = Callable[[JobService], Awaitable[str]]

JobId = Annotated[UUID, typer.Argument(metavar="ID", help="The job's id, as enqueue gave it.")]
UseCase = Annotated[str, typer.Argument(metavar="USE_CASE", help="A configured use case.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def run_with_service(act: Act) -> None:
    """Run *act* and print what it answers; exits the process."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(act))


def operator() -> str:
    """Who calls, for the log and the audit: the name of this machine's user, if it has one."""
    try:
        return f"cli:{getuser()}"
    except (KeyError, OSError):
        return "cli"


async def _run(act: Act) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config
    from async_jobs.service import JobService

    config, bus = read_config(None)
    name = process_name("async-jobs-operator")
    async with opened(config, name=name, init_db=False, connections=1) as (store, _):
        typer.echo(await act(JobService(config, store, bus=bus)))
