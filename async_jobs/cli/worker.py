"""`async-jobs-worker`: runs handlers for the jobs of one or more queues."""

from __future__ import annotations

from typing import Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term


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
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run a worker. SIGTERM lets running attempts finish within the grace period."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(queue or [], init_db, concurrency, handlers, log_level))


async def _run(
    queues: list[str],
    init_db: bool,
    concurrency: int | None,
    handlers: str | None,
    log_level: str | None,
) -> None:
    from async_jobs.assembly import (
        build_leased_listener,
        build_receivers,
        build_slo_writer,
        build_worker,
        process_name,
    )
    from async_jobs.cli.process import (
        listening,
        opened,
        read_config,
        threads_for_handlers,
        with_option,
    )
    from async_jobs.registry import job_registry, load_handlers
    from async_jobs.runtime.signals import on_stop
    from async_jobs.runtime.slo_writer import writing
    from async_jobs.telemetry.events import ProcessStarted, ProcessStopped

    config, bus = read_config(log_level)
    if concurrency is not None:
        config = with_option(config, "--concurrency", worker_concurrency=concurrency)
    if queues:
        config = with_option(config, "--queue", worker_queue=tuple(queues))
    load_handlers(required_handlers(handlers or config.handlers_module))
    name = process_name("async-jobs-worker")
    async with opened(config, name=name, init_db=init_db, connections=4) as (store, clients):
        receivers = build_receivers(name, config, store, config.worker_queue, clients, bus=bus)
        service = build_worker(name, config, store, job_registry, receivers, bus=bus)
        on_stop(lambda: service.stop(grace_seconds=config.worker_grace_seconds))
        async with (
            writing(build_slo_writer(config, store, bus=bus), bus=bus),
            listening(build_leased_listener(name, config, receivers), bus=bus),
        ):
            types = ", ".join(sorted(job_registry.types())) or "none"
            bus.emit(ProcessStarted(role="worker", name=name, detail=f"handlers {types}"))
            with threads_for_handlers(config.worker_concurrency):
                await service.run()
    bus.emit(ProcessStopped(role="worker", name=name))


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
