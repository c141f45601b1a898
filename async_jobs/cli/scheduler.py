"""`async-jobs-scheduler`: leases due jobs and sends them on their way."""

from __future__ import annotations

from typing import Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term


def scheduler(
    init_db: Annotated[
        bool, typer.Option("--init-db", help="Create or update the schema.")
    ] = False,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run a scheduler. Any number may run; they take turns and need no leader."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(init_db, log_level))


async def _run(init_db: bool, log_level: str | None) -> None:
    from async_jobs.assembly import (
        build_due_listener,
        build_scheduler,
        build_slo_writer,
        process_name,
    )
    from async_jobs.cli.process import listening, opened, read_config
    from async_jobs.runtime.signals import on_stop
    from async_jobs.runtime.slo_writer import writing
    from async_jobs.telemetry.events import ProcessStarted, ProcessStopped

    config, bus = read_config(log_level)
    name = process_name("async-jobs-scheduler")
    connections = min(config.db_pool_max_size, 2 + len(config.use_cases))
    async with opened(config, name=name, init_db=init_db, connections=connections) as (
        store,
        clients,
    ):
        service = build_scheduler(config, store, clients, bus=bus)
        on_stop(service.stop)
        async with (
            writing(build_slo_writer(config, store, bus=bus), bus=bus),
            listening(build_due_listener(name, config, service), bus=bus),
        ):
            use_cases = ", ".join(config.use_cases)
            bus.emit(ProcessStarted(role="scheduler", name=name, detail=f"use cases {use_cases}"))
            await service.run()
    bus.emit(ProcessStopped(role="scheduler", name=name))


def main() -> None:
    """The console script."""
    exit_on_term()
    run_command(scheduler)


if __name__ == "__main__":
    main()
