"""`async-jobs dashboard`: serves the dashboard as a process of its own.

Applications that have a FastAPI application include its router instead. As with the API, without
a token it starts only on this machine's own addresses, and only if told.
"""

from __future__ import annotations

from typing import Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term


def dashboard(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8080,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no token; on this machine only.")
    ] = False,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Serve the dashboard. It asks for the API's tokens."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(host, port, no_auth, log_level))


async def _run(host: str, port: int, no_auth: bool, log_level: str | None) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.api import check_access, listening_on, server_extra
    from async_jobs.cli.process import opened, read_config
    from async_jobs.service import JobService
    from async_jobs.telemetry.events import ProcessStarted, ProcessStopped

    config, bus = read_config(log_level)
    check_access(config, host=host, no_auth=no_auth)
    with server_extra():
        from async_jobs.api.app import serve
        from async_jobs.dashboard.app import build_dashboard
    name = process_name("async-jobs-dashboard")
    async with opened(config, name=name, init_db=False, connections=config.db_pool_max_size) as (
        store,
        _,
    ):
        app = build_dashboard(JobService(config, store, bus=bus), config, no_auth)
        with listening_on(host, port) as listener:
            place = f"http://{host}:{listener.getsockname()[1]}"
            bus.emit(ProcessStarted(role="dashboard", name=name, detail=place))
            try:
                await serve(app, listener, log_level=log_level or config.log_level)
            finally:
                bus.emit(ProcessStopped(role="dashboard", name=name))


def main() -> None:
    """The console script."""
    exit_on_term()
    run_command(dashboard)


if __name__ == "__main__":
    main()
