"""Tables of figures: medians over rounds with the smallest and the largest beside them.

One table per measurement, as Markdown or, in a terminal, by rich. Also the targets and
whether the medians meet them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table as RichTable

Line = Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class Column:
    """A figure and how it is shown; *spread* adds the smallest and the largest."""

    title: str
    key: str
    digits: int = 0
    spread: bool = False

    def cell(self, lines: Sequence[Line]) -> str:
        """The median of the figure in *lines*, empty if none has it."""
        values = [value for line in lines if isinstance(value := line.get(self.key), int | float)]
        if not values:
            return ""
        text = self._text(median(values))
        if self.spread and len(values) > 1:
            text += f" ({self._text(min(values))}..{self._text(max(values))})"
        return text

    def _text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a heading."""

    heading: str
    titles: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Target:
    """What the median of a figure has to reach."""

    wanted: str
    contestant: str
    measure: str
    case: str
    key: str
    at_least: float = 0.0
    at_most: float = float("inf")


_PER_JOB = (
    Column("SQL statements", "statements", 3),
    Column("WAL bytes", "wal_bytes"),
    Column("SQS requests", "sqs_requests", 3),
    Column("PostgreSQL µs", "postgres_us"),
    Column("workers µs", "worker_us"),
    Column("SQS server µs", "sqs_us"),
)
_OTHERS = Column("cores busy elsewhere", "other_cores", 1)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "drain": (
        Column("jobs", "jobs"),
        Column("jobs/s", "rate", spread=True),
        *_PER_JOB,
        Column("repeated", "repeated"),
        _OTHERS,
    ),
    "enqueue": (
        Column("jobs", "jobs"),
        Column("jobs/s", "rate", spread=True),
        *_PER_JOB[:4],
        _OTHERS,
    ),
    "latency": (
        Column("p50 ms", "p50_ms", 1, spread=True),
        Column("p95 ms", "p95_ms", 1, spread=True),
        Column("p99 ms", "p99_ms", 1, spread=True),
        Column("missing", "missing"),
        *_PER_JOB,
        _OTHERS,
    ),
    "idle": (
        Column("SQL statements/min", "statements"),
        Column("SQS requests/min", "sqs_requests", 1),
        Column("workers CPU s/min", "worker_cpu_seconds", 2),
        Column("PostgreSQL CPU s/min", "postgres_cpu_seconds", 2),
        Column("WAL bytes/min", "wal_bytes"),
        Column("MB resident", "megabytes"),
    ),
}
HEADINGS = {
    "drain": "Drain: jobs that wait, until the last is finished",
    "enqueue": "Enqueue",
    "latency": "Latency: enqueue call to start",
    "idle": "Idle",
}
TARGETS = (
    Target("≥ 3,000 jobs/s drained", "async-jobs-pg", "drain", "1 worker", "rate", 3_000),
    Target("≥ 1,500 jobs/s drained", "async-jobs-sqs", "drain", "1 worker", "rate", 1_500),
    Target("≥ 10,000 jobs/s enqueued in bulk", "async-jobs-pg", "enqueue", "bulk", "rate", 10_000),
    Target(
        "p50 ≤ 60 ms at 10 jobs/s", "async-jobs-pg", "latency", "10 jobs/s", "p50_ms", at_most=60
    ),
    Target(
        "p50 ≤ 60 ms at 10 jobs/s", "async-jobs-sqs", "latency", "10 jobs/s", "p50_ms", at_most=60
    ),
)


def tables(lines: Sequence[Line]) -> Iterator[Table]:
    """One table per measurement that *lines* hold, then the targets."""
    for measure, columns in COLUMNS.items():
        groups = _grouped([line for line in lines if line.get("measure") == measure])
        if groups:
            titles = ["", "contestant", *[column.title for column in columns]]
            rows = [
                [case, contestant, *[column.cell(group) for column in columns]]
                for (case, contestant), group in groups.items()
            ]
            yield _without_empty(Table(HEADINGS[measure], titles, rows))
    if met := list(_met(lines)):
        yield Table("Targets", ["contestant", "target", "median", ""], met)


def _grouped(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    groups: dict[tuple[str, str], list[Line]] = {}
    cases = dict.fromkeys(str(line["case"]) for line in lines)
    for case in cases:
        for line in lines:
            if line["case"] == case:
                groups.setdefault((case, str(line["contestant"])), []).append(line)
    return groups


def _without_empty(table: Table) -> Table:
    used = [
        number for number, _ in enumerate(table.titles) if any(row[number] for row in table.rows)
    ]
    return Table(
        table.heading,
        [table.titles[number] for number in used],
        [[row[number] for number in used] for row in table.rows],
    )


def _met(lines: Sequence[Line]) -> Iterator[list[str]]:
    for target in TARGETS:
        asked = (target.contestant, target.measure, target.case)
        values = [
            value
            for line in lines
            if (line.get("contestant"), line.get("measure"), line.get("case")) == asked
            and isinstance(value := line.get(target.key), int | float)
        ]
        if values:
            middle = median(values)
            met = target.at_least <= middle <= target.at_most
            yield [target.contestant, target.wanted, f"{middle:,.0f}", "met" if met else "missed"]


def markdown(table: Table) -> str:
    """The table as Markdown, with its heading."""
    lines = [table.titles, ["---"] * len(table.titles), *table.rows]
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"## {table.heading}\n\n{rows}\n"


def show(table: Table, console: Console) -> None:
    """Print the table: drawn in a terminal, Markdown into a pipe or file."""
    if not console.is_terminal:
        console.file.write(markdown(table) + "\n")
        return
    drawn = RichTable(title=table.heading, title_justify="left")
    for number, title in enumerate(table.titles):
        drawn.add_column(title, justify="left" if number < 2 else "right")
    for row in table.rows:
        drawn.add_row(*row)
    console.print(drawn)
