"""`async-jobs slo`: how promises are kept, one line for each use case.

Reads the database directly, as a scheduler does, with bounded queries: it may be left open with
`--watch`. On a terminal it prints a table, elsewhere plain lines, with `--json` what the HTTP API
answers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.runtime.signals import exit_on_term

if TYPE_CHECKING:
    from rich.table import Table

    from async_jobs.core.slo_report import UseCaseSlo
    from async_jobs.service import JobService

WATCH_EVERY_SECONDS = 2.0
HEADINGS = (
    "use case", "kept 1 h", "kept 1 day", "target", "budget left", "burn 1 h", "late now",
    "oldest late", "in flight", "needed", "alert",
)  # fmt: skip
TENANT_HEADINGS = ("use case", "tenant", "held", "share", "waits", "kept 1 day")


def slo(
    use_case: Annotated[str | None, typer.Argument(help="One use case instead of all.")] = None,
    tenants: Annotated[
        bool, typer.Option("--tenants", help="Also who holds slots, or waits for some.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print anew every two seconds.")] = False,
) -> None:
    """Show how promises are kept: error budget, late jobs and slots needed, by use case."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(use_case, tenants, as_json, watch))


async def _run(use_case: str | None, tenants: bool, as_json: bool, watch: bool) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config
    from async_jobs.runtime.signals import on_stop
    from async_jobs.service import JobService

    config, _ = read_config(None)
    name = process_name("async-jobs-slo")
    async with opened(config, name=name, init_db=False, connections=1) as (store, _):
        service = JobService(config, store)
        await _print(service, use_case, tenants, as_json, clear=watch)
        if watch:
            stop_asked = asyncio.Event()
            on_stop(stop_asked.set)
            while not await _is_set_soon(stop_asked):
                await _print(service, use_case, tenants, as_json, clear=True)


async def _is_set_soon(event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), WATCH_EVERY_SECONDS)
    return event.is_set()


async def _print(
    service: JobService, use_case: str | None, tenants: bool, as_json: bool, *, clear: bool
) -> None:
    found = await service.slo(use_case, tenants=tenants)
    if as_json:
        typer.echo(as_text(found))
    elif sys.stdout.isatty():
        _print_tables(found, tenants, clear)
    else:
        typer.echo("\n".join(plain_lines(found, tenants)))


def as_text(found: Sequence[UseCaseSlo]) -> str:
    """The same JSON as `GET /jobs/slo` answers."""
    from async_jobs.schemas import SloView

    return SloView.model_validate({"use_cases": found}).model_dump_json()


def plain_lines(found: Sequence[UseCaseSlo], tenants: bool) -> list[str]:
    """`use_case=mail kept_1h=99.2% ...`: one line for each use case, then for each tenant."""
    lines = [_plain(HEADINGS, use_case_cells(each)) for each in found]
    if tenants:
        lines += [_plain(TENANT_HEADINGS, row) for each in found for row in tenant_rows(each)]
    return lines


def use_case_cells(each: UseCaseSlo) -> list[str]:
    """One row of the table."""
    return [
        each.use_case,
        _share(each.last_hour.kept_share),
        _share(each.last_day.kept_share),
        _share(each.target),
        _share(each.budget_left),
        f"{each.burn_rates['1h']:.1f}",
        f"{each.late_now}{'+' if each.late_now_cut else ''}",
        f"{each.oldest_late_seconds:.0f} s" if each.oldest_late_seconds else "-",
        f"{each.in_flight} of {each.capacity}",
        f"{each.required_slots}{'+' if each.required_slots_cut else ''}",
        each.alert.value,
    ]


def tenant_rows(each: UseCaseSlo) -> list[list[str]]:
    """One row for each tenant of a use case."""
    return [
        [
            each.use_case,
            tenant.tenant_id,
            str(tenant.held),
            f"{tenant.share:.1f}",
            "yes" if tenant.waits else "no",
            _share(tenant.last_day.kept_share if tenant.last_day else None),
        ]
        for tenant in each.tenants
    ]


def _print_tables(found: Sequence[UseCaseSlo], tenants: bool, clear: bool) -> None:
    from rich.console import Console

    console = Console()
    if clear:
        console.clear()
    console.print(_table(HEADINGS, [use_case_cells(each) for each in found]))
    if tenants:
        console.print(_table(TENANT_HEADINGS, [row for each in found for row in tenant_rows(each)]))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _plain(headings: Sequence[str], cells: Sequence[str]) -> str:
    names = (heading.replace(" ", "_") for heading in headings)
    return " ".join(
        f"{name}={cell.replace(' ', '_')}" for name, cell in zip(names, cells, strict=True)
    )


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def main() -> None:
    """For `python -m async_jobs.cli.slo`."""
    exit_on_term()
    run_command(slo)


if __name__ == "__main__":
    main()
