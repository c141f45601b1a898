"""Every guard in the statements, taken out one at a time.

A guard is a condition of a statement that changes jobs: each part of a WHERE that is joined
by AND, each row lock, and what SET asks about the cancel, the status and the attempts. They
are found in the files, not listed here, so that a new statement brings its own.

As a pytest plugin (`-p sql_mutants`, with the mutant's name in SQL_MUTANT) this makes the
library read the statement without that guard, before it is first imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from async_jobs.store import queries

VARIABLE = "SQL_MUTANT"
TOPICS = ("jobs", "functions", "turn", "late", "matching", "retention")
_MOVES = re.compile(r"\b(UPDATE jobs|DELETE FROM jobs|INSERT INTO jobs)\b")
_END_OF_CLAUSE = re.compile(
    r"\b(ORDER BY|GROUP BY|LIMIT|RETURNING|FOR UPDATE|DO UPDATE|UNION ALL)\b"
)
_LOCK = re.compile(r"FOR UPDATE(?: OF \w+)?(?: SKIP LOCKED)?")
_ASKED_IN_SET = re.compile(
    r"(?<!SET )(?:\w+\.)?(?:cancel_requested_at IS (?:NOT )?NULL"
    r"|(?<!,\n {4})(?<!,\n {8})(?<!,\n {12})status (?:=|<>) '\w+'|attempts (?:<|>=) max_attempts)"
)
_HIDDEN = re.compile(r"CASE WHEN (.*) THEN true END", re.DOTALL)

EQUIVALENT = {
    ("jobs_start", "leased_at IS NOT NULL -> true"): (
        "a lease that ends in the future is a lease: the constraint jobs_lease_whole"
    ),
    ("cancel_matching", "status IN ('pending', 'running') #2 -> true"): (
        "`chosen` has asked it of the rows that it locked"
    ),
    ("requeue_matching", "finished_at IS NOT NULL #2 -> true"): (
        "`chosen` has asked it of the rows that it locked"
    ),
    ("prune_by_status", "finished_at >= coalesce(%(after)s::timestamptz, '-infinity') -> true"): (
        "who comes after a pair is not before its first half; says where the index is entered"
    ),
}
"""Changes that no job can tell, and why."""


class Mutant(NamedTuple):
    """One statement with one guard changed: the text from *begin* to *end* becomes *instead*."""

    topic: str
    statement: str
    begin: int
    end: int
    instead: str

    @property
    def name(self) -> str:
        return f"{self.topic}.{self.statement}:{self.begin}:{self.instead or 'nothing'}"

    @property
    def guard(self) -> str:
        """What is taken out, on one line."""
        return " ".join(_text(self.topic, self.statement)[self.begin : self.end].split())

    @property
    def change(self) -> str:
        """What becomes of the guard; a guard that came before has its number behind it."""
        before = {one.begin for one in mutants() if one.is_like(self) and one.begin < self.begin}
        number = f" #{len(before) + 1}" if before else ""
        return f"{self.guard}{number} -> {self.instead or 'nothing'}"

    @property
    def reason(self) -> str:
        """Why no job can tell, "" where some job can."""
        return EQUIVALENT.get((self.statement, self.change), "")

    def is_like(self, other: Mutant) -> bool:
        """Whether both change the same words of one statement."""
        return (self.statement, self.guard) == (other.statement, other.guard)

    def applied(self) -> str:
        text = _text(self.topic, self.statement)
        return text[: self.begin] + self.instead + text[self.end :]


def _text(topic: str, statement: str) -> str:
    return queries.statements(topic)[statement].decode()


@cache
def mutants() -> tuple[Mutant, ...]:
    """All of them, in the order of the files."""
    return tuple(
        mutant
        for topic in TOPICS
        for statement, text in queries.statements(topic).items()
        if _MOVES.search(text.decode())
        for mutant in sorted(set(_mutants_of(topic, statement, text.decode())))
    )


def _mutants_of(topic: str, statement: str, text: str) -> Iterator[Mutant]:
    for found in _LOCK.finditer(text):
        yield Mutant(topic, statement, *found.span(), "")
    guarded: list[tuple[int, int]] = []
    for found in re.finditer(r"\bWHERE\b", text):
        guarded.append(found.span())
        for begin, end in _parts(text, found.end()):
            guarded.append((begin, end))
            yield Mutant(topic, statement, begin, end, "true")
    for found in _ASKED_IN_SET.finditer(text):
        if not any(begin <= found.start() < end for begin, end in guarded):
            for instead in ("true", "false"):
                yield Mutant(topic, statement, *found.span(), instead)


def _parts(text: str, begin: int) -> Iterator[tuple[int, int]]:
    """The parts joined by AND of the condition that begins at *begin*, and of a hidden one."""
    depth, start, cases = 0, begin, 0
    for token in re.finditer(r"[();]|\bCASE\b|\bEND\b|\bAND\b|" + _END_OF_CLAUSE.pattern, text):
        if token.start() < begin:
            continue
        word = token.group()
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
        elif word in ("CASE", "END"):
            cases += 1 if word == "CASE" else -1
        elif word == "AND" and not depth and not cases:
            yield from _part(text, start, token.start())
            start = token.end()
            continue
        if depth < 0 or (not depth and (word == ";" or _END_OF_CLAUSE.fullmatch(word))):
            yield from _part(text, start, token.start())
            return
    yield from _part(text, start, len(text))


def _part(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    hidden = _HIDDEN.match(text[begin:end].strip())
    begin += len(text[begin:end]) - len(text[begin:end].lstrip())
    if hidden:
        yield from _parts(text[: begin + hidden.end(1)], begin + hidden.start(1))
    elif text[begin:end].strip():
        yield begin, begin + len(text[begin:end].rstrip())


def plant(name: str) -> None:
    """From now on the library reads the mutant's text; must come before the library's import."""
    (mutant,) = (one for one in mutants() if one.name == name)
    texts = {**queries.statements(mutant.topic), mutant.statement: mutant.applied().encode()}
    given = queries.statements

    def statements(topic: str) -> dict[str, bytes]:
        return texts if topic == mutant.topic else given(topic)

    queries.statements = statements  # type: ignore[assignment] # only its cache is missing


if os.environ.get(VARIABLE):
    plant(os.environ[VARIABLE])
