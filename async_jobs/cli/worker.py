"""`async-jobs-worker`: runs handlers for the jobs of one or more queues."""

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


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option(
            help="An SQS queue URL, a queue name or a use case; repeatable. Without it: "
            "ASYNC_JOBS_WORKER_QUEUE, then QUEUE_URL, then every configured use case."
        ),
    ] = None,
    init_db: Annotated[
        bool, typer.Option("--init-db", help="Create or update the schema.")
    ] = False,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Attempts at once [env: ASYNC_JOBS_WORKER_CONCURRENCY]."),
    ] = None,
    handlers: Annotated[
        str | None,
        typer.Option(help="Module with the handlers [env: ASYNC_JOBS_HANDLERS_MODULE]."),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(help="Port for /healthz and /readyz [env: ASYNC_JOBS_HEALTH_PORT]."),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run a worker. SIGTERM lets running attempts finish within the grace period."""
    from async_jobs.cli.process import run_process

    options = {
        "--queue": ("worker_queue", tuple(queue) if queue else None),
        "--concurrency": ("worker_concurrency", concurrency),
        "--health-port": ("health_port", health_port),
    }
    run_process(lambda: _run(options, init_db, handlers, log_level))


async def _run(
    options: Options, init_db: bool, handlers: str | None, log_level: str | None
) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config, watched
    from async_jobs.registry import load_handlers
    from async_jobs.telemetry.events import ProcessStopped

    config, bus = read_config(log_level, options)
    name = process_name("async-jobs-worker")
    interval = config.worker_poll_interval_seconds
    with watched(config, "worker", name, interval_seconds=interval, bus=bus) as watch:
        load_handlers(required_handlers(handlers or config.handlers_module))
        async with opened(config, name=name, init_db=init_db, connections=4, bus=bus) as (
            store,
            clients,
        ):
            await _work(name, config, store, clients, watch, bus)
    bus.emit(ProcessStopped(role="worker", name=name))


async def _work(
    name: str,
    config: AsyncJobsConfig,
    store: JobStore,
    clients: SqsClients,
    watch: Watch,
    bus: Bus,
) -> None:
    from async_jobs.assembly import (
        build_leased_listener,
        build_receivers,
        build_slo_writer,
        build_worker,
        build_worker_presence,
        vitals_of,
    )
    from async_jobs.cli.process import listening, stop_when_asked, threads_for_handlers
    from async_jobs.registry import job_registry
    from async_jobs.runtime.presence import present
    from async_jobs.runtime.slo_writer import writing
    from async_jobs.telemetry.events import ProcessStarted
    from async_jobs.telemetry.metrics import subscribe_if_configured

    grace_seconds = config.worker_grace_seconds
    receivers = build_receivers(name, config, store, config.worker_queue, clients, bus=bus)
    service = build_worker(name, config, store, job_registry, receivers, bus=bus)
    stop_when_asked(
        watch, lambda: service.stop(grace_seconds=grace_seconds), grace_seconds=grace_seconds
    )
    service.tell(watch.health)
    subscribe_if_configured(bus, by_tenant=config.slo_by_tenant == "on")
    vitals = vitals_of(watch.health, service.loops, clients)
    seen = build_worker_presence(name, config, store, job_registry, service, vitals)
    async with (
        writing(build_slo_writer(config, store, bus=bus), bus=bus),
        present(seen, bus=bus),
        listening(build_leased_listener(name, config, receivers), bus=bus),
    ):
        watch.health.probe = store.ping
        types = ", ".join(sorted(job_registry.types())) or "none"
        bus.emit(ProcessStarted(role="worker", name=name, detail=f"handlers {types}"))
        with threads_for_handlers(config.worker_concurrency, bus=bus):
            await service.run()


def required_handlers(module: str | None) -> str:
    """The handlers module; raises ConfigError if there is none."""
    from async_jobs.errors import ConfigError

    if not module:
        raise ConfigError(
            [
                "ASYNC_JOBS_HANDLERS_MODULE: is not set, so this worker could run nothing; set it "
                "to the module that registers your handlers, for example myapp.job_handlers"
            ]
        )
    return module


def main() -> None:
    """The console script."""
    exit_on_term()
    run_command(worker)


if __name__ == "__main__":
    main()
