"""The named statements of the store and the code that uses them fit together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sql_mutants import mutants

from async_jobs.store.queries import query, statements

from .test_stale_statistics import CALLS

PACKAGE = Path(str(files("async_jobs")))
FUNCTIONS = "functions"
TOPICS = sorted({path.stem for path in (PACKAGE / "store").glob("*.sql")} - {FUNCTIONS})
NAMES = sorted((topic, name) for topic in TOPICS for name in statements(topic))
A_JOB_TO_CLAIM = b"""
WITH granted AS (
    INSERT INTO jobs_grants VALUES ('mail', now(), 1000, now() + interval '1 day')
)
INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
    deadline_at, due)
VALUES (gen_random_uuid(), 'acme', 'mail', 'send', 'mail', '{}', now(), '1 hour', now() + '1 hour',
    true)
"""
_ASKING = {"query", "_scalars", "_one_job"}
_PARAMETER = re.compile(rb"%\((\w+)\)[sb]")


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
def named_in_code() -> list[tuple[str, tuple[str, str]]]:
    """(file, (topic, statement name)) for each place that asks for a statement."""
    return list(_named_in_code())


def _named_in_code() -> Iterator[tuple[str, tuple[str, str]]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _called(node) in _ASKING and node.args:
                given = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
                if len(given) == len(node.args[:2]):
                    name, topic = [*given, "jobs"][:2]
                    yield str(path.relative_to(PACKAGE)), (str(topic), str(name))


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.own_session
@pytest.mark.parametrize(("topic", "name"), NAMES)
def test_a_statement_prepares_on_the_migrated_schema(
    topic: str, name: str, db: psycopg.Connection[Any]
) -> None:
    text, _ = numbered(query(name, topic))

    db.execute(b"PREPARE candidate AS " + text)


@pytest.mark.own_session
def test_a_statement_without_a_guard_is_a_statement_still(db: psycopg.Connection[Any]) -> None:
    """One that PostgreSQL refuses would be found by any test, and prove nothing."""
    for number, mutant in enumerate(mutants()):
        text, _ = numbered(mutant.applied().encode())

        if mutant.topic == FUNCTIONS:
            _call_it(db, mutant.statement, text)
        else:
            db.execute(b"PREPARE mutant_%d AS " % number + text)


def _call_it(db: psycopg.Connection[Any], name: str, text: bytes) -> None:
    """What a function does is looked at when it does it."""
    with db.transaction(force_rollback=True):
        db.execute(A_JOB_TO_CLAIM)
        db.execute(text)
        with suppress(psycopg.IntegrityError):  # then it ran
            db.execute(CALLS[name].encode(), {"ids": [], "seqs": [], "most": 1})


def test_every_function_is_called() -> None:
    assert set(CALLS) == set(statements(FUNCTIONS))


def test_every_statement_is_used() -> None:
    assert set(NAMES) == {name for _, name in named_in_code()}


def test_every_statement_that_code_names_exists() -> None:
    for file, name in named_in_code():
        assert name in NAMES, file


def test_no_statement_is_composed_at_run_time() -> None:
    texts = [query(name, topic).decode() for topic, name in NAMES]

    assert [text for text in texts if "{" in text.replace("'{", "")] == []


def test_every_statement_is_one_statement() -> None:
    assert [name for topic, name in NAMES if ";" in query(name, topic).decode()] == []


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
