"""`async-jobs simulate`: what a policy, a capacity or a quota would have done.

Runs the jobs of a workload or of a trace through the scheduler's own decisions, on
a clock of its own: a day takes seconds and touches no database. `--export` writes such
a trace from what the table still holds. What is printed to stdout depends on the input and
the options alone; how far it has come goes to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from async_jobs.cli.command import run_command
from async_jobs.cli.simulation_report import Run, as_json, as_text, show
from async_jobs.cli.trace_file import read_trace
from async_jobs.runtime.signals import exit_on_term
from async_jobs.simulation import workloads
from async_jobs.simulation.arrivals import (
    DEFAULT_BACKOFF_SECONDS,
    Workload,
    header,
    lines_of,
)
from async_jobs.simulation.engine import Progress
from async_jobs.simulation.engine import simulate as run_simulation
from async_jobs.simulation.need import least_capacity
from async_jobs.simulation.picture import Drawn, draw
from async_jobs.simulation.policies import Lateness, Policy, Setup

TELL_EVERY = 100_000

Number = TypeVar("Number", int, float)

_Workload = Annotated[
    str | None, typer.Option(help=f"A made workload: {', '.join(workloads.NAMES)}.")
]
_Seed = Annotated[int, typer.Option(help="What a made workload begins from.")]
_Trace = Annotated[Path | None, typer.Option(help="A CSV of jobs to run instead; .gz is unpacked.")]
_Export = Annotated[
    Path | None,
    typer.Option(help="Write such a CSV from the database's finished jobs (- for stdout)."),
]
_UseCase = Annotated[str | None, typer.Option(help="Whose jobs to export.")]
_Since = Annotated[
    datetime | None, typer.Option(help="Export what finished from this time on (UTC).")
]
_Capacity = Annotated[
    list[int] | None, typer.Option(min=1, help="Slots; repeatable. The workload's own by default.")
]
_Policy = Annotated[
    list[Policy] | None, typer.Option(help="Order of the starts; repeatable. [recommended]")
]
_Weight = Annotated[
    list[str] | None, typer.Option(help="TENANT=W: its share counts W times; * for all others.")
]
_MaxConcurrent = Annotated[
    list[str] | None, typer.Option(help="TENANT=N: at most N slots; * for all others.")
]
_Need = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Find the fewest slots with at most this part late."),
]
_Late = Annotated[Lateness, typer.Option(help="What becomes of late jobs.")]
_Backoff = Annotated[float, typer.Option(min=0.0, help="Wait before a failed job's next attempt.")]
_Tenants = Annotated[bool, typer.Option("--tenants", help="Show every tenant.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_Svg = Annotated[Path | None, typer.Option(help="Draw lateness, misses and slots over time.")]


def simulate(
    workload: _Workload = None,
    seed: _Seed = 1,
    trace: _Trace = None,
    export: _Export = None,
    use_case: _UseCase = None,
    since: _Since = None,
    capacity: _Capacity = None,
    policy: _Policy = None,
    weight: _Weight = None,
    max_concurrent: _MaxConcurrent = None,
    need: _Need = None,
    late: _Late = Lateness.RUN,
    backoff_seconds: _Backoff = DEFAULT_BACKOFF_SECONDS,
    tenants: _Tenants = False,
    json: _Json = False,
    svg: _Svg = None,
) -> None:
    """Try a policy, a capacity or quotas on made or recorded jobs before you deploy them."""
    if [workload, trace, export].count(None) != 2:
        _refuse("give one of --workload, --trace and --export")
    if export is not None:
        _export(export, use_case, since)
        return
    if need is not None and capacity:
        _refuse("--need finds the capacity: leave --capacity out")
    jobs = _made(workload, seed) if workload is not None else _read(trace)
    setup = Setup(
        capacity=jobs.capacity,
        weights=_by_tenant("--weight", weight, float),
        max_concurrent=_by_tenant("--max-concurrent", max_concurrent, int),
        late=late,
        backoff_seconds=backoff_seconds,
    )
    setups = [
        replace(setup, policy=each, capacity=slots)
        for each in policy or [Policy.RECOMMENDED]
        for slots in capacity or [jobs.capacity]
    ]
    runs = [_run(jobs, each, need) for each in setups]
    _show(jobs, runs, tenants=tenants, json=json)
    if svg is not None:
        drawn = [Drawn(run.label, run.setup.capacity, run.figures) for run in runs]
        svg.write_text(draw(jobs.name, drawn), "utf-8")


def _made(name: str, seed: int) -> Workload:
    if name not in workloads.NAMES:
        _refuse(f"--workload must be one of {', '.join(workloads.NAMES)}")
    made = workloads.workload(name, seed=seed)
    return replace(made, name=f"{name}, seed {seed}")


def _read(trace: Path | None) -> Workload:
    assert trace is not None  # noqa: S101 # one of the two is given
    try:
        return read_trace(trace)
    except ValueError as error:
        _refuse(f"--trace: {error}")


def _run(jobs: Workload, setup: Setup, need: float | None) -> Run:
    if need is not None:
        with _told(f"{setup.policy}, least slots", len(jobs.arrivals)) as progress:
            capacity = least_capacity(jobs, setup, late_share=need, progress=progress)
        setup = replace(setup, capacity=capacity)
    with _told(f"{setup.policy}, {setup.capacity} slots", len(jobs.arrivals)) as progress:
        return Run(setup, run_simulation(jobs, setup, progress=progress))


def _show(jobs: Workload, runs: Sequence[Run], *, tenants: bool, json: bool) -> None:
    if json:
        typer.echo(as_json(jobs, runs, tenants=tenants), nl=False)
    elif sys.stdout.isatty():
        from rich.console import Console

        show(Console(), jobs, runs, tenants=tenants)
    else:
        typer.echo(as_text(jobs, runs, tenants=tenants), nl=False)


@contextmanager
def _told(what: str, jobs: int) -> Iterator[Progress]:
    """Says on stderr how far a simulation has come: a bar on a terminal, else a line at times."""
    if not sys.stderr.isatty():
        yield lambda arrived: _tell_at_times(what, arrived, jobs)
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(what, total=jobs)
        yield lambda arrived: bar.update(row, completed=arrived)


def _tell_at_times(what: str, arrived: int, jobs: int) -> None:
    if arrived % TELL_EVERY == 0:
        typer.echo(f"{what}: {arrived} of {jobs} jobs", err=True)


def _by_tenant(
    option: str, words: Sequence[str] | None, number: Callable[[str], Number]
) -> dict[str, Number]:
    found = {}
    for word in words or ():
        tenant, _, text = word.rpartition("=")
        try:
            value = number(text)
        except ValueError:
            value = number("0")
        if not tenant or not 0 < value < float("inf"):
            _refuse(f"{option} must be TENANT=NUMBER with a number above 0")
        found[tenant] = value
    return found


def _refuse(text: str) -> NoReturn:
    typer.echo(f"error: {text}", err=True)
    raise typer.Exit(2)


def _export(target: Path, use_case: str | None, since: datetime | None) -> None:
    if use_case is None:
        _refuse("--export needs --use-case")
    from async_jobs.cli.process import run_process

    run_process(lambda: _write(target, use_case, since))


async def _write(target: Path, use_case: str, since: datetime | None) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config

    config, _ = read_config(None)
    name = process_name("async-jobs-simulate")
    since = since and since.replace(tzinfo=UTC)
    async with opened(config, name=name, init_db=False, connections=1) as (store, _):
        with _text_file(target) as write:
            write(header())
            async for page in store.finished_pages(use_case, since=since):
                write(lines_of(page))


@contextmanager
def _text_file(target: Path) -> Iterator[Callable[[str], object]]:
    if str(target) == "-":
        yield sys.stdout.write
        return
    with target.open("w", encoding="utf-8", newline="") as file:
        yield file.write


def main() -> None:
    """For `python -m async_jobs.cli.simulate`."""
    exit_on_term()
    run_command(simulate)


if __name__ == "__main__":
    main()
