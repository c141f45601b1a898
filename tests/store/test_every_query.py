"""The statements of the .sql files and the code that uses them fit together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest

from async_jobs.store.queries import query, statements

PACKAGE = Path(str(files("async_jobs")))
TOPICS = sorted(path.stem for path in (PACKAGE / "store").glob("*.sql"))
STATEMENTS = {name: text for topic in TOPICS for name, text in statements(topic).items()}
NAMES = sorted(STATEMENTS)
_CALLS = {"query", "_scalars", "_one_job"}
_PARAMETER = re.compile(rb"%\((\w+)\)s")


def numbered(statement: bytes) -> tuple[bytes, list[str]]:
    """The statement with $1, $2, ... and the names they stand for."""
    names = list(dict.fromkeys(name.decode() for name in _PARAMETER.findall(statement)))
    return (
        _PARAMETER.sub(
            lambda found: b"$%d" % (names.index(found.group(1).decode()) + 1), statement
        ),
        names,
    )


@cache
def named_in_code() -> list[tuple[str, str]]:
    """(file, statement name) for each place that asks for a statement."""
    return list(_named_in_code())


def _named_in_code() -> Iterator[tuple[str, str]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _called(node) in _CALLS and node.args:
                argument = node.args[0]
                if isinstance(argument, ast.Constant):
                    yield str(path.relative_to(PACKAGE)), str(argument.value)


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_prepares_on_the_migrated_schema(
    name: str, db: psycopg.Connection[Any]
) -> None:
    text, _ = numbered(STATEMENTS[name])

    db.execute(b"PREPARE candidate AS " + text)


def test_no_two_files_have_a_statement_of_the_same_name() -> None:
    assert len(NAMES) == sum(len(statements(topic)) for topic in TOPICS)


def test_every_statement_is_used() -> None:
    assert set(NAMES) == {name for _, name in named_in_code()}


def test_every_statement_that_code_names_exists() -> None:
    for file, name in named_in_code():
        assert name in NAMES, file


def test_no_statement_is_composed_at_run_time() -> None:
    assert all("{" not in STATEMENTS[name].decode().replace("'{", "") for name in NAMES)


def test_every_statement_is_one_statement() -> None:
    assert [name for name in NAMES if ";" in STATEMENTS[name].decode()] == []


def test_a_misspelt_name_is_refused_with_the_file() -> None:
    with pytest.raises(KeyError, match=r"store/jobs\.sql has no statement named 'strat_jobs'"):
        query("strat_jobs")


def test_only_the_store_holds_sql() -> None:
    verbs = re.compile(r"\b(SELECT|UPDATE|INSERT INTO|DELETE FROM) ")
    outside = [
        path.name
        for path in PACKAGE.rglob("*.py")
        if path.parent.name not in ("store", "embedded")
        and verbs.search(_code_without_docstrings(path))
    ]

    assert outside == []


def _code_without_docstrings(path: Path) -> str:
    return re.sub(r'"""[\s\S]*?"""', "", path.read_text("utf-8"))
