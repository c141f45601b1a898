"""The whole system on one machine: what `async-jobs dev` starts, in which order, and where.

    1  the SQS server (a process) and PostgreSQL (a child of ours), at the same time
    2  the API, the scheduler, the mail server of the demo; each creates the schema if needed
    3  the workers
    4  with --demo its traffic, which owns the terminal and ends everything

Stopping goes the other way round, PostgreSQL last. The processes are the ordinary
commands and learn everything from their environment. The data lies in one folder,
which only one `async-jobs dev` uses at a time.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from async_jobs.dev import parts
from async_jobs.dev.banner import Places, banner
from async_jobs.dev.ground import (
    api_port,
    check_handlers,
    data_folder,
    free_port,
    source_checkout,
    until_it_accepts,
)
from async_jobs.dev.merged_log import MergedLog
from async_jobs.dev.options import (
    Options,
    TransportName,
    configured_queues,
    environment,
    queue_name,
)
from async_jobs.dev.queues import create_queues
from async_jobs.dev.reload import restart_on_change, watched_folders
from async_jobs.dev.supervisor import Supervisor
from async_jobs.embedded.postgres import PostgresServer
from async_jobs.errors import AsyncJobsError

API_START_TIMEOUT_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_QUEUE_OWNER = "000000000000"


class Stack:
    """Everything that one `async-jobs dev` runs; `run` once."""

    def __init__(self, options: Options, env: Mapping[str, str], *, began_at: float) -> None:
        self._options = options
        self._env = env
        self._began_at = began_at
        self._workers = [f"worker-{number}" for number in range(1, options.workers + 1)]
        self._queues = configured_queues(options, env)
        self._source = source_checkout() if options.demo else None
        check_handlers(options.handlers_module, self._source or Path.cwd())
        self._api_port = api_port(options.port)
        self._sqs_port = free_port() if options.needs_sqs_server else None
        self._server = None if options.database_url else _server(options)

    def run(self) -> int:
        """Run until stopped; the exit code. Raises AsyncJobsError when a part cannot start."""
        with data_folder(self._options.data_dir), self._log() as self._merged:
            if self._options.fresh and self._server is not None:
                self._server.discard()
            self._supervisor = Supervisor(self._merged)
            try:
                return asyncio.run(self._supervisor.run(self._launch))
            finally:
                if self._server is not None:
                    self._server.stop()

    async def _launch(self) -> None:
        _show("Starting PostgreSQL, SQS, the API, a scheduler and workers ...\n")
        if self._sqs_port is not None:
            names = [queue_name(name, url) for name, url in self._queues.items()]
            self._supervisor.start(parts.sqs_server(self._sqs_port, names))
        dsn = self._start_database()
        endpoint, urls = await self._find_queues()
        env = environment(self._env, self._options, dsn=dsn, endpoint=endpoint, queue_urls=urls)
        if self._source is not None:
            env |= _demo_environment(self._source, env)
        self._start_services(env)
        queues = list(urls.values()) or list(self._queues)
        # Starting takes a second of a processor each: the first job needs one worker only.
        self._start_workers(self._workers[:1], env, queues)
        await self._wait_for_the_api()
        self._start_workers(self._workers[1:], env, queues)
        self._show_banner(env, dsn, endpoint)
        if self._options.demo:
            self._supervisor.start(parts.demo(env, self._api_url, self._source))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_the_database())
            group.create_task(self._restart_on_change())

    @property
    def _api_url(self) -> str:
        return f"http://127.0.0.1:{self._api_port}"

    def _start_database(self) -> str:
        if self._server is None:
            return self._options.database_url or ""
        # In this thread: the kernel ends the server when the thread that started it dies.
        self._server.start()
        if self._server.notice:
            self._merged.say(self._server.notice)
        return self._server.dsn

    async def _find_queues(self) -> tuple[str | None, dict[str, str]]:
        """The SQS endpoint and use case → queue URL; nothing without SQS."""
        if self._options.transport is TransportName.POSTGRES:
            return None, {}
        if self._options.sqs_endpoint is None:
            endpoint = f"http://127.0.0.1:{self._sqs_port}"
            return endpoint, {
                use_case: f"{endpoint}/{_QUEUE_OWNER}/{queue_name(use_case, url)}"
                for use_case, url in self._queues.items()
            }
        endpoint = self._options.sqs_endpoint
        given = {use_case: url for use_case, url in self._queues.items() if url}
        missing = {name: queue_name(name, None) for name in self._queues if name not in given}
        made = await asyncio.to_thread(create_queues, endpoint, list(missing.values()))
        return endpoint, given | {use_case: made[name] for use_case, name in missing.items()}

    def _start_services(self, env: dict[str, str]) -> None:
        services = []
        if self._source is not None:
            smtp_port = int(env["SMTP_PORT"])
            services.append(parts.mail_server(env, smtp_port, self._source))
        services.append(parts.api(env, self._api_port, self._source))
        services.append(parts.scheduler(env, self._source))
        self._supervisor.start(*services)

    def _start_workers(self, names: Sequence[str], env: dict[str, str], queues: list[str]) -> None:
        reload = self._options.reload
        workers = [parts.worker(name, env, queues, self._source, reload=reload) for name in names]
        self._supervisor.start(*workers)

    async def _wait_for_the_api(self) -> None:
        try:
            async with asyncio.timeout(API_START_TIMEOUT_SECONDS):
                await until_it_accepts(self._api_port)
        except TimeoutError as error:
            raise AsyncJobsError(
                f"The API did not come up within {API_START_TIMEOUT_SECONDS:g} s; see its lines "
                "in the log above."
            ) from error

    def _show_banner(self, env: Mapping[str, str], dsn: str, endpoint: str | None) -> None:
        places = Places(
            api_url=self._api_url,
            dsn=dsn,
            queues=f"SQS at {endpoint}" if endpoint else "in PostgreSQL",
            data_dir=self._server.data_dir if self._server else None,
            log_path=self._log_path if self._options.demo else None,
            token_needed=parts.has_token(env),
        )
        text = banner(self._options, places, seconds=time.monotonic() - self._began_at)
        _show(text)

    async def _keep_the_database(self) -> None:
        """Start PostgreSQL again when it was killed; its address stays the same."""
        while self._server is not None:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._server.is_running:
                self._merged.say("PostgreSQL has ended; starts again")
                self._server.start()

    async def _restart_on_change(self) -> None:
        if self._options.reload:
            folders = watched_folders(self._options.handlers_module, Path.cwd())
            await restart_on_change(folders, self._supervisor.restart_on_change, self._merged.say)

    @property
    def _log_path(self) -> Path:
        return self._options.data_dir / "demo.log"

    @contextmanager
    def _log(self) -> Iterator[MergedLog]:
        """Where the processes' lines go: to the terminal, or to a file when the demo has that."""
        names = ["sqs", "api", "scheduler", "mail", *self._workers]
        if not self._options.demo:
            yield MergedLog(names, sys.stdout)
            return
        with self._log_path.open("w", encoding="utf-8") as file:
            yield MergedLog(names, file)


def _show(text: str) -> None:
    """Write to the terminal, also where the processes' lines go to a file."""
    MergedLog([], sys.stdout).plain(text)


def _server(options: Options) -> PostgresServer:
    return PostgresServer(options.data_dir / "postgres", settings="durable")


def _demo_environment(source: Path, env: Mapping[str, str]) -> dict[str, str]:
    path = [str(source), *filter(None, [env.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(free_port()),
    }
