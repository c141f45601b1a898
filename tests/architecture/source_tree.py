"""Finds and parses the project's own files for the tests of its architecture."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "async_jobs"
SNAPSHOTS = ROOT / "tests" / "snapshots"
UPDATE = "UPDATE_SNAPSHOTS"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files() -> list[Path]:
    """Every Python file of the library, in a fixed order."""
    return sorted(PACKAGE.rglob("*.py"))


def all_python_files() -> list[Path]:
    """The library's Python files and those around it: tests, benchmark, docs, examples, model."""
    around = ("tests", "bench", "docs", "examples", "model")
    return python_files() + sorted(path for part in around for path in (ROOT / part).rglob("*.py"))


def sql_files() -> list[Path]:
    """Every SQL file of the library, in a fixed order."""
    return sorted(PACKAGE.rglob("*.sql"))


def place(path: Path) -> str:
    """The path as messages and allow-lists spell it: from the package down."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text("utf-8"))


def functions(path: Path) -> Iterator[Function]:
    """Every function of a file, methods and inner functions included."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, Function):
            yield node


def matches_snapshot(name: str, text: str) -> bool:
    """Whether *text* is what the snapshot holds; rewrites it when asked to by the environment."""
    path = SNAPSHOTS / name
    if os.environ.get(UPDATE):
        path.write_text(text, "utf-8")
    return path.is_file() and path.read_text("utf-8") == text
