"""`async-jobs config`: the effective settings, each with its value and where it comes from.

Reads the environment as every other process does, so what it prints is what a
scheduler or worker started here would use. Secrets are masked. With
`--markdown` it prints the table of the documentation, which depends on no
environment. It never connects to anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from async_jobs.config import AsyncJobsConfig
from async_jobs.errors import ConfigError
from async_jobs.settings import Setting


def settings_table() -> str:
    """Every environment variable as a Markdown table, in the order of the README."""
    described = AsyncJobsConfig(db_dsn="postgresql://localhost").describe()
    rows = [f"| {_code(each)} | {_needed(each)} | {_description(each)} |" for each in described]
    return "\n".join(["| Variable | Required | Description |", "|---|---|---|", *rows]) + "\n"


def config(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of the documentation instead.")
    ] = False,
) -> None:
    """Print the effective settings and where each comes from; secrets are masked."""
    if markdown:
        typer.echo(settings_table(), nl=False)
        return
    try:
        described = AsyncJobsConfig.from_env(warn=_tell).describe()
    except ConfigError as error:
        _tell(str(error))
        raise typer.Exit(2) from None
    if sys.stdout.isatty():
        Console().print(_table(described))
    else:
        typer.echo("\n".join(_plain(each) for each in described))


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _table(described: Iterable[Setting]) -> Table:
    table = Table(title="Settings of async_jobs")
    for heading in ("Variable", "Value", "From", "Meaning"):
        table.add_column(heading, overflow="fold")
    for each in described:
        style = "dim" if each.source == "default" else ""
        table.add_row(each.name, _text(each.value), each.source, _text(each.meaning), style=style)
    return table


def _text(text: str) -> str:
    return text.replace("[", r"\[")


def _plain(each: Setting) -> str:
    return f"{each.name}={each.value}  # {each.source}"


def _code(each: Setting) -> str:
    return f"`{each.name}`"


def _needed(each: Setting) -> str:
    return "Yes" if each.required else "No"


def _description(each: Setting) -> str:
    default = f" (default: {each.default})" if each.default else ""
    return f"{each.meaning}{default}".replace("|", r"\|")
