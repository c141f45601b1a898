"""`python -m bench`: run the benchmark; `setup` installs the peers, `report` prints again.

python -m bench setup [NAME...]       virtual environments for the peers, under .venvs/
python -m bench [run] [OPTIONS]       one run: private servers, every contestant, a table
python -m bench report FILE...        the table of earlier runs' JSON lines
python -m bench replay [NAME...]      the real scheduler on a virtual clock beside the simulation
python -m bench backlog [--jobs N]    buffers of each move beside a backlog of ten million jobs
python -m bench growth [CASE...]      drain rates as backlog, history and tenants grow
python -m bench idle                  start-up, idle and a trickle: what waiting costs
python -m bench history               enqueue and start beside ten million finished jobs
python -m bench dashboard [--rows N]  each page of the dashboard beside a million jobs
python -m bench api                   requests that a core of the API process answers in a second
python -m bench scaling               autoscaling by deadlines and by depth, simulated
python -m bench hosts                 several machines, as network namespaces; needs root
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import psycopg
from rich.console import Console

from async_jobs.cli.trace_file import read_trace
from async_jobs.simulation.workloads import workload
from bench import api, backlog, dashboard, growth, history, hosts, idle, replay, scaling
from bench.chart import pictures
from bench.contestants import ROOT, Contestant, known
from bench.machine import facts
from bench.measures import MEASURES, Figures, Sizes
from bench.page import PICTURE, page
from bench.servers import Servers, running
from bench.stand import StandError
from bench.table import Line, show, tables

FAILURES = (StandError, subprocess.TimeoutExpired, psycopg.Error, OSError, ValueError)
QUICK = Sizes(jobs=2_000, latency_seconds=3.0, idle_seconds=5.0)


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup", help="install the peers")
    setup.add_argument("names", nargs="*", help="only these")
    report = commands.add_parser("report", help="print the tables of earlier runs")
    report.add_argument("files", nargs="+", type=Path)
    beside = commands.add_parser("backlog", help="what each move reads beside a large backlog")
    beside.add_argument("--jobs", type=int, default=10_000_000)
    grown = commands.add_parser("growth", help="drain rates as the table grows")
    grown.add_argument("cases", nargs="*", metavar="CASE", help="only these, and their bases")
    grown.add_argument("--rounds", type=int, default=3)
    grown.add_argument("--large", action="store_true", help="ten million waiting jobs, too")
    waiting = commands.add_parser("idle", help="what a scheduler and a worker cost that wait")
    waiting.add_argument("--seconds", type=float, default=60.0)
    waiting.add_argument("--rounds", type=int, default=1)
    waiting.add_argument("--contestants", default="", help="only these, separated by commas")
    past = commands.add_parser("history", help="enqueue and start beside finished jobs")
    past.add_argument("--finished", type=int, default=10_000_000)
    past.add_argument("--jobs", type=int, default=1_000)
    seen = commands.add_parser("dashboard", help="each page of the dashboard beside many jobs")
    seen.add_argument("--rows", type=int, default=1_000_000)
    seen.add_argument("--rounds", type=int, default=30)
    asked = commands.add_parser("api", help="requests a second and core of the API process")
    asked.add_argument("--rounds", type=int, default=3)
    scaled = commands.add_parser("scaling", help="autoscaling rules, simulated on a burst")
    scaled.add_argument("--seed", type=int, default=1)
    commands.add_parser("hosts", help="several machines, as network namespaces (root)")
    again = commands.add_parser("replay", help="workloads on a virtual clock")
    again.add_argument("workloads", nargs="*", default=replay.WORKLOADS, metavar="WORKLOAD")
    again.add_argument("--seed", type=int, default=1)
    again.add_argument("--seconds", type=float, help="shorten the workloads to so many seconds")
    again.add_argument("--trace", type=Path, help="a CSV as `async-jobs simulate` takes it")
    again.add_argument("--capacity", type=int, help="slots, if not the workload's own")
    again.add_argument("--cap", type=int, default=0, help="the most slots of a noisy tenant")
    run = commands.add_parser("run", help="run the benchmark (the default)")
    run.add_argument("--contestants", help="only these, separated by commas")
    run.add_argument("--measures", default=",".join(MEASURES), help="only these")
    run.add_argument("--rounds", type=int, default=3)
    run.add_argument("--quick", action="store_true", help="fewer jobs, shorter waits")
    run.add_argument("--jobs", type=int, help="most jobs of a drain")
    run.add_argument("--out", type=Path, help="file for the JSON lines")
    for command in (setup, run):
        command.add_argument(
            "--harness", action="append", default=[], type=Path, metavar="DIR",
            help="a folder with further adapters and a contestants.toml",
        )  # fmt: skip
    for command in (report, run):
        command.add_argument(
            "--page", type=Path, help="write the result as a Markdown page with pictures"
        )
    if not given or given[0].startswith("--"):
        given = ["run", *given]
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Do what the command line asks; 1 if a contestant failed."""
    arguments = _arguments(given)
    match arguments.command:
        case "setup":
            return _setup(arguments)
        case "replay":
            return _replay(arguments)
        case "backlog":
            backlog.run(arguments.jobs)
            return 0
        case "growth":
            return growth.run(arguments.cases, rounds=arguments.rounds, large=arguments.large)
        case "idle":
            return idle.run(
                Console(),
                seconds=arguments.seconds,
                rounds=arguments.rounds,
                only=[name for name in arguments.contestants.split(",") if name],
            )
        case "history":
            return history.run(arguments.finished, jobs=arguments.jobs)
        case "dashboard":
            return dashboard.run(arguments.rows, rounds=arguments.rounds)
        case "api":
            return api.run(Console(), rounds=arguments.rounds)
        case "scaling":
            return scaling.run(arguments.seed)
        case "hosts":
            return hosts.run(Console())
        case "report":
            return _report(arguments.files, arguments.page)
        case _:
            return _run(arguments)


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.trace:
        try:
            loads = [read_trace(arguments.trace)]
        except ValueError as error:
            print(f"error: --trace: {error}", file=sys.stderr)
            return 2
    else:
        loads = [
            workload(name, seed=arguments.seed, seconds=arguments.seconds)
            for name in arguments.workloads
        ]
    return 0 if replay.run(loads, capacity=arguments.capacity, cap=arguments.cap) else 1


def _setup(arguments: argparse.Namespace) -> int:
    for one in known(arguments.harness):
        if one.requires and (not arguments.names or one.name in arguments.names):
            print(f"{one.name}: {', '.join(one.requires)}", flush=True)
            one.install()
            print(f"{one.name}: {one.distribution} {one.version}", flush=True)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    contestants = _chosen(arguments)
    measures = [name for name in arguments.measures.split(",") if name]
    if unknown := set(measures) - set(MEASURES):
        sys.exit(f"No such measure: {', '.join(unknown)}. There are {', '.join(MEASURES)}.")
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.jobs:
        sizes = Sizes(
            jobs=arguments.jobs,
            latency_seconds=sizes.latency_seconds,
            idle_seconds=sizes.idle_seconds,
        )
    out = arguments.out or _new_file()
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = False
    with running() as servers, out.open("w", encoding="utf-8") as file:
        _write(file, {"measure": "facts", **facts(servers, contestants, sizes)})
        for number in range(arguments.rounds):
            # Every other round backwards: nobody always runs on the emptier machine.
            for one in contestants if number % 2 == 0 else reversed(contestants):
                for line in _measured(one, servers, measures, sizes):
                    failed = failed or "error" in line
                    _write(file, {**line, "round": number})
    print(f"JSON lines: {out}", file=sys.stderr)
    _report([out], arguments.page)
    return int(failed)


def _measured(
    one: Contestant, servers: Servers, measures: Sequence[str], sizes: Sizes
) -> Iterator[Figures]:
    for measure in measures:
        line: Figures = {"contestant": one.name, "measure": measure}
        try:
            for figures in MEASURES[measure](one, servers, sizes):
                yield {**line, **figures, "load": round(os.getloadavg()[0], 2)}
        except FAILURES as error:
            yield {**line, "case": "error", "error": f"{type(error).__name__}: {error}"}


def _write(file: TextIO, line: Figures | dict[str, str]) -> None:
    text = json.dumps(line)
    file.write(text + "\n")
    file.flush()
    print(text, file=sys.stderr, flush=True)


def _report(files: Sequence[Path], page_file: Path | None) -> int:
    lines: list[Line] = [
        json.loads(text) for file in files for text in file.read_text("utf-8").splitlines()
    ]
    told = [line for line in lines if line["measure"] == "facts"]
    figures = [line for line in lines if line["measure"] != "facts" and "error" not in line]
    known_facts = {name: str(value) for name, value in told[-1].items() if name != "measure"}
    console = Console(width=None if sys.stdout.isatty() else 200)
    for name, value in known_facts.items():
        console.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    for table in tables(figures):
        show(table, console)
    for line in lines:
        if "error" in line:
            console.print(f"{line['contestant']}, {line['measure']}: {line['error']}", markup=False)
    if page_file:
        page_file.write_text(page(known_facts, figures), "utf-8")
        for name, picture in pictures(figures).items():
            page_file.with_name(PICTURE.format(name)).write_text(picture, "utf-8")
    return 0


def _chosen(arguments: argparse.Namespace) -> list[Contestant]:
    """The contestants asked for, or all that are installed."""
    everyone = known(arguments.harness)
    if not arguments.contestants:
        missing = [one.name for one in everyone if one.version is None]
        if missing:
            print(f"Not installed, left out: {', '.join(missing)}. `python -m bench setup`")
        return [one for one in everyone if one.version is not None]
    by_name = {one.name: one for one in everyone}
    names = arguments.contestants.split(",")
    if unknown := [name for name in names if name not in by_name]:
        sys.exit(f"No such contestant: {', '.join(unknown)}. There are {', '.join(by_name)}.")
    return [by_name[name] for name in names]


def _new_file() -> Path:
    return ROOT / ".async-jobs" / "bench" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"


if __name__ == "__main__":
    # Unwind, so that the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(sys.argv[1:]))
