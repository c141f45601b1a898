"""The processes of the development stack as commands; pure, so that one can read them off.

All are the ordinary commands of the library, run by this interpreter.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from async_jobs.dev.child import Part

WORKER_GRACE_SECONDS = 25.0
"""A little more than a worker takes for itself."""
_LOG_LEVEL = ("--log-level", "INFO")


def sqs_server(port: int, queues: Iterable[str]) -> Part:
    """Our SQS server; started again, it has the same queues, empty."""
    wanted = [word for name in dict.fromkeys(queues) for word in ("--queue", name)]
    return Part(
        name="sqs",
        command=(sys.executable, "-m", "async_jobs.embedded.sqs", "--port", str(port), *wanted),
    )


def api(env: Mapping[str, str], port: int, cwd: Path | None) -> Part:
    """The HTTP API; without a token in *env* it asks for none."""
    command = [sys.executable, "-m", "async_jobs.cli.api", "--port", str(port), "--init-db"]
    command.append("--dashboard")
    command += [*_LOG_LEVEL, *([] if has_token(env) else ["--no-auth"])]
    return Part(name="api", command=tuple(command), env=env, cwd=cwd)


def scheduler(env: Mapping[str, str], cwd: Path | None) -> Part:
    """The one scheduler."""
    command = (sys.executable, "-m", "async_jobs.cli.scheduler", "--init-db", *_LOG_LEVEL)
    return Part(name="scheduler", command=command, env=env, cwd=cwd)


def worker(
    name: str, env: Mapping[str, str], queues: Iterable[str], cwd: Path | None, *, reload: bool
) -> Part:
    """A worker for *queues*, which are URLs or, without SQS, use cases."""
    wanted = [word for queue in dict.fromkeys(queues) for word in ("--queue", queue)]
    command = (sys.executable, "-m", "async_jobs.cli.worker", *wanted, "--init-db", *_LOG_LEVEL)
    return Part(
        name=name,
        command=command,
        env=env,
        cwd=cwd,
        restarts_on_change=reload,
        grace_seconds=WORKER_GRACE_SECONDS,
    )


def mail_server(env: Mapping[str, str], port: int, cwd: Path | None) -> Part:
    """The mail server of the demo."""
    command = (sys.executable, "-m", "examples.mail_server", "--port", str(port))
    return Part(name="mail", command=command, env=env, cwd=cwd)


def demo(env: Mapping[str, str], api_url: str, cwd: Path | None) -> Part:
    """The traffic of the demo and its screen."""
    return Part(
        name="demo",
        command=(sys.executable, "-m", "examples.demo"),
        env={**env, "ASYNC_JOBS_API_URL": api_url},
        cwd=cwd,
        foreground=True,
    )


def has_token(env: Mapping[str, str]) -> bool:
    """True if the API asks for a token."""
    return bool(env.get("ASYNC_JOBS_ENQUEUE_AUTH_TOKEN", "").strip())
