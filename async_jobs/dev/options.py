"""What `async-jobs dev` was asked for, and the environment that follows for its processes.

The processes are the ordinary commands: they learn everything from their
environment, as they would in production. What the user has set is kept, but for
the queues, which must never be the real ones by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from async_jobs.config import AsyncJobsConfig

DEFAULT_HANDLERS = "async_jobs.dev.handlers"
DEMO_HANDLERS = "examples.handlers"
_QUEUE_PREFIX = "ASYNC_JOBS_SQS_QUEUE_"
_PLACEHOLDER_DSN = "postgresql://localhost"
# A profile or session of the user's would outrank or break the local credentials.
_AWS_OF_THE_USER = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")
# A stop waits for the poll in hand, and a local server loses nothing by short ones.
_LONG_POLL_SECONDS = "1"


class TransportName(StrEnum):
    """What carries the messages."""

    SQS = "sqs"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line of `async-jobs dev`."""

    data_dir: Path
    database_url: str | None = None
    sqs_endpoint: str | None = None
    transport: TransportName = TransportName.SQS
    workers: int = 2
    port: int | None = None
    handlers: str | None = None
    demo: bool = False
    reload: bool = False
    fresh: bool = False

    @property
    def handlers_module(self) -> str:
        """The module that the workers import."""
        return DEMO_HANDLERS if self.demo else self.handlers or DEFAULT_HANDLERS

    @property
    def needs_sqs_server(self) -> bool:
        return self.transport is TransportName.SQS and self.sqs_endpoint is None


def configured_queues(options: Options, env: Mapping[str, str]) -> dict[str, str | None]:
    """Use case → URL of its queue as *env* has it, or None.

    Raises ConfigError if the processes could not use *env*.
    """
    config = AsyncJobsConfig.from_env({**env, "ASYNC_JOBS_DB_DSN": _PLACEHOLDER_DSN})
    return {name: use_case.sqs_queue_url for name, use_case in config.use_cases.items()}


def queue_name(use_case: str, url: str | None) -> str:
    """What the queue of a use case is called on a local server."""
    return url.rstrip("/").rpartition("/")[2] if url else use_case.replace("_", "-")


def environment(
    env: Mapping[str, str],
    options: Options,
    *,
    dsn: str,
    endpoint: str | None,
    queue_urls: Mapping[str, str],
) -> dict[str, str]:
    """The environment of the processes; *endpoint* and *queue_urls* are empty without SQS."""
    kept = {name: value for name, value in env.items() if not name.startswith(_QUEUE_PREFIX)}
    kept |= {
        "ASYNC_JOBS_DB_DSN": dsn,
        "ASYNC_JOBS_HANDLERS_MODULE": options.handlers_module,
        **{f"{_QUEUE_PREFIX}{name.upper()}": url for name, url in queue_urls.items()},
    }
    kept.setdefault("ASYNC_JOBS_WORKER_LONG_POLL_SECONDS", _LONG_POLL_SECONDS)
    if endpoint:
        kept |= _aws(kept, endpoint, ours=options.needs_sqs_server)
    if options.needs_sqs_server:
        for name in _AWS_OF_THE_USER:
            kept.pop(name, None)
    return kept


def _aws(env: Mapping[str, str], endpoint: str, *, ours: bool) -> dict[str, str]:
    local = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    given = {name: env[name] for name in local if name in env and not ours}
    return {
        "AWS_DEFAULT_REGION": env.get("AWS_DEFAULT_REGION", "us-east-1"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_SQS": endpoint,
        # A proxy for the outside world must not get what is said to this machine.
        "NO_PROXY": ",".join(filter(None, ["127.0.0.1,localhost", env.get("NO_PROXY")])),
        **(given or local),
    }
