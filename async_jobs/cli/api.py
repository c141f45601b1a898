"""`async-jobs api`: serves the HTTP API as a process of its own.

Applications that have a FastAPI application include the router instead. Other
servers than the built-in one take `async_jobs.cli.api:create_app` as a factory.
Without a token it starts only on this machine's own addresses, and only if told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY, create_server, socket
from typing import TYPE_CHECKING, Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term

if TYPE_CHECKING:
    from fastapi import FastAPI

    from async_jobs.config import AsyncJobsConfig
    from async_jobs.service import JobService


def create_app(config: AsyncJobsConfig | None = None) -> FastAPI:
    """The whole application; its lifespan opens the pool and checks the schema.

    Raises ConfigError without ASYNC_JOBS_ENQUEUE_AUTH_TOKEN and ASYNC_JOBS_API_TOKENS.
    """
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened
    from async_jobs.config import AsyncJobsConfig
    from async_jobs.service import JobService

    settings = config or AsyncJobsConfig.from_env()
    services: list[JobService] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        name = process_name("async-jobs-api")
        connections = settings.db_pool_max_size
        async with opened(settings, name=name, init_db=False, connections=connections) as (
            store,
            _,
        ):
            services[:] = [JobService(settings, store)]
            yield

    with server_extra():
        from async_jobs.api.app import build_app
    return build_app(
        lambda: services[0],
        require_auth_token=True,
        expected_auth_token=settings.enqueue_auth_token,
        tokens=settings.api_tokens,
        max_payload_bytes=settings.max_payload_bytes,
        lifespan=lifespan,
    )


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    init_db: Annotated[
        bool, typer.Option("--init-db", help="Create or update the schema.")
    ] = False,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no token; on this machine only.")
    ] = False,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Serve the dashboard too, at /dashboard.")
    ] = False,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Serve the HTTP API. Tokens: ASYNC_JOBS_ENQUEUE_AUTH_TOKEN or ASYNC_JOBS_API_TOKENS."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(host, port, init_db, no_auth, dashboard, log_level))


async def _run(
    host: str, port: int, init_db: bool, no_auth: bool, dashboard: bool, log_level: str | None
) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config
    from async_jobs.service import JobService
    from async_jobs.telemetry.events import ProcessStarted, ProcessStopped

    config, bus = read_config(log_level)
    check_access(config, host=host, no_auth=no_auth)
    with server_extra():
        from async_jobs.api.app import build_app, serve
    name = process_name("async-jobs-api")
    async with opened(config, name=name, init_db=init_db, connections=config.db_pool_max_size) as (
        store,
        _,
    ):
        service = JobService(config, store, bus=bus)
        app = build_app(
            lambda: service,
            require_auth_token=not no_auth,
            expected_auth_token=config.enqueue_auth_token,
            tokens=config.api_tokens,
            max_payload_bytes=config.max_payload_bytes,
        )
        if dashboard:
            with server_extra():
                from async_jobs.dashboard.app import add_dashboard
            add_dashboard(app, service, config, no_auth)
        with listening_on(host, port) as listener:
            place = f"http://{host}:{listener.getsockname()[1]}"
            bus.emit(ProcessStarted(role="api", name=name, detail=place))
            try:
                await serve(app, listener, log_level=log_level or config.log_level)
            finally:
                bus.emit(ProcessStopped(role="api", name=name))


def check_access(config: AsyncJobsConfig, *, host: str, no_auth: bool) -> None:
    """Raise ConfigError unless there is a token, or none is needed on this machine's own host."""
    from async_jobs.config import is_loopback
    from async_jobs.errors import ConfigError

    if no_auth and not is_loopback(host):
        raise ConfigError(
            [
                "--no-auth: would let everybody who reaches this host enqueue jobs; leave it out "
                "and set ASYNC_JOBS_ENQUEUE_AUTH_TOKEN, or listen on --host 127.0.0.1"
            ]
        )
    token = config.enqueue_auth_token
    if not no_auth and not (token or "").strip() and (token is not None or not config.api_tokens):
        raise ConfigError(
            [
                "ASYNC_JOBS_ENQUEUE_AUTH_TOKEN: is not set; set it to a long random text that "
                "callers will send, set ASYNC_JOBS_API_TOKENS, or try the API on this machine "
                "with --no-auth"
            ]
        )


def listening_on(host: str, port: int) -> socket:
    """A socket that accepts connections from now on; raises ConfigError if it cannot."""
    from async_jobs.errors import ConfigError

    family = AF_INET6 if ":" in host else AF_INET
    try:
        listener = create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise ConfigError(
            [f"--host and --port: {error.strerror}; choose another --port, or 0 for a free one"]
        ) from error
    # Connections inherit it. asyncio sets it only where it made the socket, and an answer in two
    # parts would wait 40 ms for the caller's acknowledgement.
    listener.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    return listener


@contextmanager
def server_extra() -> Iterator[None]:
    """For imports of what only the `server` extra installs: ConfigError says so where it is not."""
    from async_jobs.errors import ConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "jinja2"):
            raise
        raise ConfigError(
            [f'{error.name} is not installed; install it with: pip install "async-jobs[server]"']
        ) from error


def main() -> None:
    """The console script."""
    exit_on_term()
    run_command(api)


if __name__ == "__main__":
    main()
