"""`async-jobs health`: what a container's health check calls; the image needs no curl for it.

Asks the scheduler or worker that runs beside it on ASYNC_JOBS_HEALTH_PORT. Exit code 0: it is
well. 1: it is not, or does not answer. 2: no port is configured. Only this and no more is read
from the environment, so that the check is quick and needs no secret.
"""

from __future__ import annotations

import json
import os
from http.client import HTTPConnection, HTTPException
from typing import Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term

TIMEOUT_SECONDS = 4.0
_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # asked for, not listened on


def health(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, envvar="ASYNC_JOBS_HEALTH_PORT", help="Where it answers."),
    ] = None,
    can_work: Annotated[
        bool, typer.Option("--ready", help="Ask /readyz: can it work, is its database there?")
    ] = False,
) -> None:
    """Ask the scheduler or worker on this machine whether it is well; exit 0 if so, 1 if not."""
    if port is None:
        typer.echo("error: no port; set ASYNC_JOBS_HEALTH_PORT for it and for me", err=True)
        raise typer.Exit(2)
    host = os.environ.get("ASYNC_JOBS_HEALTH_HOST", "127.0.0.1").strip()
    problems = asked(_ALL_ADDRESSES.get(host, host), port, "/readyz" if can_work else "/healthz")
    typer.echo("\n".join(problems) or "ok")
    raise typer.Exit(1 if problems else 0)


def asked(host: str, port: int, path: str) -> list[str]:
    """The problems that the process tells; that it tells nothing is one, too."""
    connection = HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        told = json.loads(answer.read(65_536))
        return [str(each) for each in told["problems"]]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        return [f"no health check answers on port {port} ({type(error).__name__})"]
    finally:
        connection.close()


def main() -> None:
    """For `python -m async_jobs.cli.health`."""
    exit_on_term()
    run_command(health)


if __name__ == "__main__":
    main()
