"""How simulations are shown: a table for people, plain columns for pipes, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.table import Table

from async_jobs.simulation.arrivals import Workload
from async_jobs.simulation.policies import Setup
from async_jobs.simulation.tally import Figures

HEADINGS = (
    *("policy", "slots", "late %", "quiet late %", "top late %", "late", "dropped"),
    *("p50 of late", "p99", "worst", "peak", "used %", "Jain"),
)
TENANT_HEADINGS = ("tenant", "jobs", "late", "late %", "worst", "slot seconds")
LEGEND = """\
late %        jobs whose first attempt started after its deadline, or was dropped
quiet late %  the same, of all tenants but {noisy}
top late %    the same, of the jobs with the highest priority
p50 of late, p99, worst   lateness in seconds: median of the late jobs; of all jobs
Jain          1 if all tenants are in time alike, 1/n if one of n gets everything\
"""

Rows = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation that was made."""

    setup: Setup
    figures: Figures

    @property
    def label(self) -> str:
        return f"{self.setup.policy}, {self.setup.capacity} slots"


def as_json(workload: Workload, runs: Sequence[Run], *, tenants: bool) -> str:
    """Everything that was measured; shares are parts of 1, times seconds."""
    document = {
        "workload": workload.name,
        "jobs": len(workload.arrivals),
        "tenants": len({each.tenant_id for each in workload.arrivals}),
        "noisy_tenants": sorted(workload.noisy),
        "work_seconds": workload.work_seconds,
        "runs": [_run_json(run, tenants=tenants) for run in runs],
    }
    return json.dumps(document, indent=2) + "\n"


def _run_json(run: Run, *, tenants: bool) -> dict[str, Any]:
    figures = asdict(run.figures)
    for key in ("bins", "bin_seconds", *(() if tenants else ("tenants",))):
        del figures[key]
    return {"policy": run.setup.policy.value, "capacity": run.setup.capacity, **figures}


def as_text(workload: Workload, runs: Sequence[Run], *, tenants: bool) -> str:
    """Aligned columns."""
    parts = [_headline(workload), _columns(HEADINGS, _rows(runs))]
    parts += [
        f"{run.label}\n{_columns(TENANT_HEADINGS, _tenant_rows(run))}" for run in runs if tenants
    ]
    return "\n\n".join([*parts, _legend(workload)]) + "\n"


def show(console: Console, workload: Workload, runs: Sequence[Run], *, tenants: bool) -> None:
    """Tables on a terminal."""
    console.print(_headline(workload), markup=False, highlight=False)
    console.print(_table(HEADINGS, _rows(runs)))
    for run in runs if tenants else ():
        console.print(_table(TENANT_HEADINGS, _tenant_rows(run), title=run.label))
    console.print(_legend(workload), style="dim", markup=False, highlight=False)


def _headline(workload: Workload) -> str:
    tenants = Counter(each.tenant_id for each in workload.arrivals)
    return (
        f"{workload.name}: {len(workload.arrivals)} jobs of {len(tenants)} tenants within "
        f"{workload.last_run_at:.0f} s, {workload.work_seconds:.0f} slot seconds of work"
    )


def _legend(workload: Workload) -> str:
    return LEGEND.format(noisy=", ".join(sorted(workload.noisy)) or "none")


def _rows(runs: Iterable[Run]) -> Rows:
    return [_row(run) for run in runs]


def _row(run: Run) -> tuple[str, ...]:
    figures = run.figures
    return (
        run.setup.policy.value,
        str(run.setup.capacity),
        _percent(figures.late_share),
        _percent(figures.quiet_late_share),
        _percent(figures.top_priority_late_share),
        str(figures.late),
        str(figures.dropped),
        f"{figures.p50_late_seconds:.1f}",
        f"{figures.p99_seconds:.1f}",
        f"{figures.worst_seconds:.1f}",
        str(figures.slots_peak),
        f"{100 * figures.utilisation:.1f}",
        f"{figures.jain:.3f}",
    )


def _tenant_rows(run: Run) -> Rows:
    return [
        (
            tenant_id,
            str(each.jobs),
            str(each.late),
            _percent(each.late / each.jobs if each.jobs else None),
            f"{each.worst_seconds:.1f}",
            f"{each.work_seconds:.0f}",
        )
        for tenant_id, each in run.figures.tenants.items()
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _columns(headings: Sequence[str], rows: Rows) -> str:
    lines = [tuple(headings), *rows]
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _table(headings: Sequence[str], rows: Rows, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(row[0].replace("[", r"\["), *row[1:])
    return table
