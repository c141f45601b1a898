"""The page `docs/reference/benchmarks.md`: facts and tables of one run, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.chart import pictures
from bench.table import HEADINGS, Line, markdown, tables

PICTURE = "benchmarks-{}.svg"
"""Where the pictures lie, beside the page."""

_HEAD = """# Benchmarks

<!-- Written by `python -m bench`; the next run replaces it. -->

Figures of one run of `python -m bench`, produced by that command and not edited. All
contestants ran on the same private PostgreSQL and the same local SQS server, one after
the other in interleaved rounds; cells are the median (smallest..largest) of the rounds.
Only ratios within one run mean anything on another machine. `bench/README.md` says what
is measured and how to read it.

CPU is µs per job: of PostgreSQL, of the contestant's own processes ("workers": for Async
Jobs the scheduler and the worker), and of the local SQS server, which is no part of
anybody's product. "Cores busy elsewhere" says how much of the machine other programs used
meanwhile: rates suffer from it, bytes and statements do not.
"""


def page(facts: Mapping[str, str], lines: Sequence[Line]) -> str:
    """The whole page."""
    known = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    drawn = "".join(f"![{HEADINGS[name]}]({PICTURE.format(name)})\n\n" for name in pictures(lines))
    parts = [_HEAD, f"| | |\n|---|---|\n{known}\n\n{drawn}"]
    return "\n".join([*parts, *[markdown(one) for one in tables(lines)]])
