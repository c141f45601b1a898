"""`async-jobs-scheduler`: leases due jobs and sends them on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term

if TYPE_CHECKING:
    from async_jobs.assembly import SqsClients
    from async_jobs.cli.process import Options
    from async_jobs.config import AsyncJobsConfig
    from async_jobs.runtime.watch import Watch
    from async_jobs.store.jobs import JobStore
    from async_jobs.telemetry.bus import Bus


def scheduler(
    init_db: Annotated[
        bool, typer.Option("--init-db", help="Create or update the schema.")
    ] = False,
    health_port: Annotated[
        int | None,
        typer.Option(help="Port for /healthz and /readyz [env: ASYNC_JOBS_HEALTH_PORT]."),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run a scheduler. Any number may run; they take turns and need no leader."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run({"--health-port": ("health_port", health_port)}, init_db, log_level))


async def _run(options: Options, init_db: bool, log_level: str | None) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config, watched
    from async_jobs.telemetry.events import ProcessStopped

    config, bus = read_config(log_level, options)
    name = process_name("async-jobs-scheduler")
    connections = min(config.db_pool_max_size, 2 + len(config.use_cases))
    interval = config.scheduler_interval_seconds
    with watched(config, "scheduler", name, interval_seconds=interval, bus=bus) as watch:
        async with opened(config, name=name, init_db=init_db, connections=connections, bus=bus) as (
            store,
            clients,
        ):
            await _schedule(name, config, store, clients, watch, bus)
    bus.emit(ProcessStopped(role="scheduler", name=name))


async def _schedule(
    name: str,
    config: AsyncJobsConfig,
    store: JobStore,
    clients: SqsClients,
    watch: Watch,
    bus: Bus,
) -> None:
    from async_jobs.assembly import (
        build_due_listener,
        build_scheduler,
        build_scheduler_presence,
        build_slo_writer,
        vitals_of,
    )
    from async_jobs.cli.process import listening, stop_when_asked
    from async_jobs.runtime.gauges import gauging
    from async_jobs.runtime.presence import present
    from async_jobs.runtime.slo_writer import writing
    from async_jobs.service import JobService
    from async_jobs.telemetry.events import ProcessStarted
    from async_jobs.telemetry.metrics import subscribe_if_configured

    service = build_scheduler(config, store, clients, bus=bus)
    stop_when_asked(watch, service.stop)
    watch.health.watch(service.loops)
    subscribe_if_configured(bus, by_tenant=config.slo_by_tenant == "on")
    vitals = vitals_of(watch.health, service.loops, clients)
    seen = build_scheduler_presence(name, config, store, service, vitals)
    async with (
        writing(build_slo_writer(config, store, bus=bus), bus=bus),
        gauging(JobService(config, store), bus=bus),
        present(seen, bus=bus) as presence,
        listening(build_due_listener(name, config, service, presence.wake), bus=bus),
    ):
        watch.health.probe = store.ping
        use_cases = ", ".join(config.use_cases)
        bus.emit(ProcessStarted(role="scheduler", name=name, detail=f"use cases {use_cases}"))
        await service.run()


def main() -> None:
    """The console script."""
    exit_on_term()
    run_command(scheduler)


if __name__ == "__main__":
    main()
