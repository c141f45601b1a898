"""The page `docs/reference/benchmarks.md`: facts and tables of one run, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.table import Line, markdown, tables

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
    parts = [_HEAD, f"| | |\n|---|---|\n{known}\n", *[markdown(one) for one in tables(lines)]]
    return "\n".join(parts)
