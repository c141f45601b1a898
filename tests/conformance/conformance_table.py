"""The list of checks, the known deviations, and the table made of both.

A check is a test of this directory; the first line of its docstring names the
AWS page it rests on. `deviations.json` says which checks other servers fail.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SERVERS = ("moto", "ministack")
BEGIN = "<!-- conformance table: written by scripts/sqs-conformance --table -->"
END = "<!-- end of the conformance table -->"


@dataclass(frozen=True)
class Check:
    """One test, in all its parameters."""

    name: str
    page: str

    @property
    def sentence(self) -> str:
        return self.name.removeprefix("test_").replace("_", " ")


def deviations() -> dict[str, dict[str, dict[str, Any]]]:
    """Server → test name → {"does": what it does instead, "sometimes": true if not always}."""
    return json.loads((HERE / "deviations.json").read_text("utf-8"))


def checks() -> Iterator[Check]:
    for path in sorted(HERE.glob("test_sqs_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield Check(node.name, (ast.get_docstring(node) or "").partition("\n")[0].strip())


def table() -> str:
    """The conformance table in Markdown."""
    known = deviations()
    lines = [
        "| check | " + " | ".join(SERVERS) + " | AWS page |",
        "|---" * (len(SERVERS) + 2) + "|",
    ]
    for check in checks():
        cells = [_cell(check, known.get(server, {})) for server in SERVERS]
        lines.append("| " + " | ".join([check.sentence, *cells, check.page]) + " |")
    return "\n".join(lines)


def document(text: str) -> str:
    """*text* with its conformance table brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _cell(check: Check, known: dict[str, dict[str, Any]]) -> str:
    found = [entry for name, entry in known.items() if name.partition("[")[0] == check.name]
    if not found:
        return "same"
    seldom = all(entry.get("sometimes", False) for entry in found)
    return ("sometimes " if seldom else "") + "; ".join(dict.fromkeys(e["does"] for e in found))
