"""`async-jobs migrate`: brings the database's schema up to date, or says what it would do.

For deployments that change the schema in a step of its own instead of starting
a process with `--init-db`. Safe to run at any time and by several at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term


def migrate(
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the schema instead; connects to nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if the schema is outdated.")
    ] = False,
) -> None:
    """Create or update the schema in ASYNC_JOBS_DB_DSN."""
    if sql:
        from async_jobs.ddl import get_ddl

        typer.echo(get_ddl(), nl=False)
        return
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(check))


async def _run(check: bool) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config

    config, _ = read_config(None)
    name = process_name("async-jobs-migrate")
    async with opened(config, name=name, init_db=not check, connections=1):
        typer.echo("The schema fits this version.")


def main() -> None:
    """For `python -m async_jobs.cli.migrate`."""
    exit_on_term()
    run_command(migrate)


if __name__ == "__main__":
    main()
