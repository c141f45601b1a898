"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest
from source_tree import (
    ROOT,
    Function,
    all_python_files,
    functions,
    place,
    python_files,
    sql_files,
)

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50
MOST_LINES_OF_SQL = 400
MEDIAN_LINES_OF_A_FUNCTION = 8
MOST_LEVELS = 3

_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
_SQL_COMMENT_OR_BLANK = re.compile(r"\s*(--.*)?")


def test_python_files_have_at_most_400_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): _lines(path) for path in all_python_files()}

    assert {name: size for name, size in sizes.items() if size > MOST_LINES_OF_A_FILE} == {}


def test_functions_have_at_most_50_lines_without_their_docstring() -> None:
    too_long = {
        f"{place(path)}:{function.name}"
        for path in python_files()
        for function in functions(path)
        if _size(function) > MOST_LINES_OF_A_FUNCTION
    }

    assert too_long == set()


def test_the_median_function_is_small(record_property: pytest.RecordProperty) -> None:
    sizes = [_size(function) for path in python_files() for function in functions(path)]
    median = statistics.median(sizes)
    record_property("functions", len(sizes))
    record_property("median_lines", median)

    assert median <= MEDIAN_LINES_OF_A_FUNCTION


def test_functions_nest_at_most_three_levels() -> None:
    too_deep = {
        f"{place(path)}:{function.name}": _depth(function.body)
        for path in python_files()
        for function in functions(path)
        if _depth(function.body) > MOST_LEVELS
    }

    assert too_deep == {}


def test_sql_files_have_at_most_400_lines_without_comments() -> None:
    sizes = {place(path): _sql_lines(path) for path in sql_files()}

    assert {name: size for name, size in sizes.items() if size > MOST_LINES_OF_SQL} == {}


def _lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def _sql_lines(path: Path) -> int:
    lines = path.read_text("utf-8").splitlines()
    return sum(not _SQL_COMMENT_OR_BLANK.fullmatch(line) for line in lines)


def _size(function: Function) -> int:
    """Lines from `def` to the end, less those of the docstring."""
    size = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function):
        docstring = function.body[0]
        size -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return size


def _depth(body: list[ast.stmt]) -> int:
    """Levels of nesting; an `elif` stays on the level of its `if`."""
    return max((_depth_of(statement) for statement in body), default=0)


def _depth_of(statement: ast.stmt) -> int:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return 0
    deepest = max((_depth(body) for body in _bodies(statement)), default=0)
    own_level = isinstance(statement, _BLOCKS)
    return max(deepest + own_level, _depth(_else_if(statement)))


def _bodies(statement: ast.stmt) -> list[list[ast.stmt]]:
    found = [
        body
        for name in ("body", "orelse", "finalbody")
        if (body := getattr(statement, name, None)) and body is not _else_if(statement)
    ]
    found += [handler.body for handler in getattr(statement, "handlers", ())]
    return found + [case.body for case in getattr(statement, "cases", ())]


def _else_if(statement: ast.stmt) -> list[ast.stmt]:
    """The body of an `else` that holds nothing but another `if`."""
    orelse: list[ast.stmt] = getattr(statement, "orelse", [])
    is_else_if = isinstance(statement, ast.If) and len(orelse) == 1
    return orelse if is_else_if and isinstance(orelse[0], ast.If) else []
