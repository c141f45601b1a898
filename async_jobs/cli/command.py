"""Turns one function into one command: how its help looks and how its faults are shown.

Every command goes through here, alone or as a part of `async-jobs`. Help is
plain text, which is quick and keeps square brackets. Tracebacks are Python's own,
without the values of variables: those may be secrets. What the database refuses a right for is
no fault of ours, and told in a sentence; exit code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from async_jobs.cli.rights import refusal


def new_app(help_text: str | None = None) -> typer.Typer:
    """An empty command line in our manner."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        no_args_is_help=help_text is not None,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def run_command(
    function: Callable[..., None], name: str | None = None, words: Sequence[str] | None = None
) -> None:
    """Run *function* with the command line's words, or with *words*; exits the process."""
    app = new_app()
    app.command()(function)
    try:
        app(words, prog_name=name)
    except Exception as error:
        said = refusal(getattr(function, "__name__", ""), error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)  # noqa: T201 # the command's own words
        sys.exit(1)
