"""`async-jobs`: every command of the library under one name.

A command's module is imported when the command is called, so that the help is
quick and a scheduler's process never loads what only the API needs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import typer

from async_jobs.cli.command import new_app, run_command
from async_jobs.runtime.signals import exit_on_term

# The function of this name in the module `cli.<name>` is the command, if `_ELSEWHERE` does not
# name another module, or `_NAMED` another function.
COMMANDS = {
    "dev": "Run the whole system on this machine.",
    "scheduler": "Lease due jobs and send them on their way.",
    "worker": "Run handlers for the jobs of one or more queues.",
    "api": "Serve the HTTP API.",
    "dashboard": "Serve the dashboard.",
    "migrate": "Create or update the database's schema.",
    "simulate": "Try a policy, a capacity or quotas before you deploy them.",
    "top": "Watch every use case live.",
    "slo": "Show how promises are kept.",
    "autoscaling": "Say how many workers keep the promises of the next minutes.",
    "health": "Ask a process on this machine whether it is well.",
    "list": "List jobs, newest first.",
    "show": "Show one job, whole.",
    "explain": "Say why a job is where it is.",
    "enqueue": "Enqueue one job.",
    "cancel": "Cancel a job.",
    "requeue": "Put a finished job back.",
    "pause": "Lease no more jobs of a use case.",
    "resume": "Lease jobs of a use case again.",
    "scale": "Set the capacity of a use case.",
    "quota": "Set what a tenant may have.",
    "prune": "Delete finished jobs that are old.",
    "processes": "List schedulers and workers.",
    "stop": "Ask a scheduler or worker to stop.",
    "audit": "Say who did what.",
    "doctor": "Look the whole system over.",
    "config": "Print the effective settings and where each comes from.",
}

_ELSEWHERE = {
    **dict.fromkeys(("list", "show", "explain", "enqueue", "cancel", "requeue"), "jobs"),
    **dict.fromkeys(("pause", "resume", "scale", "quota", "processes", "stop", "audit"), "steer"),
}
_NAMED = {"list": "list_jobs"}

app = new_app("Background jobs with a deadline, on PostgreSQL and SQS.")


def function_of(name: str) -> Callable[..., None]:
    """The function that is the command *name*; imports its module."""
    module = import_module(f"async_jobs.cli.{_ELSEWHERE.get(name, name)}")
    command: Callable[..., None] = getattr(module, _NAMED.get(name, name))
    return command


def _add(name: str, summary: str) -> None:
    @app.command(
        name,
        help=summary,
        add_help_option=False,  # the command itself knows its options
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def call(context: typer.Context) -> None:
        run_command(function_of(name), f"async-jobs {name}", context.args)


for _name, _summary in COMMANDS.items():
    _add(_name, _summary)


def main() -> None:
    """The console script."""
    exit_on_term()
    app()


if __name__ == "__main__":
    main()
