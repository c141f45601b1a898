"""`async-jobs dev`: the whole system on this machine, with nothing to install beside it.

Reads the command line and the environment and leaves the rest to `dev.stack`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.dev.options import Options, TransportName

_DatabaseUrl = Annotated[
    str | None,
    typer.Option(envvar="ASYNC_JOBS_DB_DSN", help="Use this PostgreSQL instead of a private one."),
]
_SqsEndpoint = Annotated[
    str | None,
    typer.Option(
        envvar="AWS_ENDPOINT_URL_SQS", help="Use this SQS server instead of a private one."
    ),
]
_Transport = Annotated[TransportName, typer.Option(help="What carries the messages.")]
_Workers = Annotated[int, typer.Option(min=0, max=64, help="How many worker processes.")]
_Port = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, help="Port of the API; 8000 or a free one by default."),
]
_Handlers = Annotated[
    str | None,
    typer.Option(envvar="ASYNC_JOBS_HANDLERS_MODULE", help="Module with your handlers."),
]
_Reload = Annotated[bool, typer.Option("--reload", help="Restart the workers when code changes.")]
_Demo = Annotated[
    bool, typer.Option("--demo", help="Run the example application's traffic, then end.")
]
_DataDir = Annotated[Path, typer.Option(help="Where the data is kept.")]
_Fresh = Annotated[bool, typer.Option("--fresh", help="Throw the data of earlier runs away first.")]


def dev(
    database_url: _DatabaseUrl = None,
    sqs_endpoint: _SqsEndpoint = None,
    transport: _Transport = TransportName.SQS,
    workers: _Workers = 2,
    port: _Port = None,
    handlers: _Handlers = None,
    reload: _Reload = False,
    demo: _Demo = False,
    data_dir: _DataDir = Path(".async-jobs"),
    fresh: _Fresh = False,
) -> None:
    """Run PostgreSQL, SQS, the API, a scheduler and workers here. Ctrl-C stops them all."""
    began_at = time.monotonic()
    from async_jobs.dev.stack import Stack
    from async_jobs.errors import AsyncJobsError, ConfigError

    options = Options(
        data_dir=data_dir.resolve(),
        database_url=database_url,
        sqs_endpoint=sqs_endpoint,
        transport=transport,
        workers=workers,
        port=port,
        handlers=handlers,
        demo=demo,
        reload=reload,
        fresh=fresh,
    )
    try:
        code = Stack(options, os.environ, began_at=began_at).run()
    except AsyncJobsError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 # the command's own words
        code = 2 if isinstance(error, ConfigError) else 1
    raise typer.Exit(code)


def main() -> None:
    """Run the command alone: `python -m async_jobs.cli.dev`."""
    run_command(dev)


if __name__ == "__main__":
    main()
