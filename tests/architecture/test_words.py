"""One word per concept: identifiers, SQL names, log lines and headings use the glossary's words.

`docs/glossary.md` says which word stands for what. The words below are the ones it
rules out. A few of them name something else too, something that is not ours: those
uses are listed with their reason, and a use that is no longer there must leave the list.
(A token is no word for a slot, but it is not listed: the API's callers show one.)
`embedded/` is not read: it speaks the language of SQS and of the operating system.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from source_tree import PACKAGE, ROOT, parsed, place, python_files, sql_files

from async_jobs.telemetry.logs import _WORDING

SAY_INSTEAD = {
    "job": "task tasks workitem",
    "type": "taskname jobname",
    "handler": "executor",
    "payload": "args kwargs body params",
    "tenant": "account org organisation organization",
    "use case": "category group groups",
    "queue": "topic topics channel",
    "transport": "broker bus",
    "due": "ready available",
    "deadline": "sla expiry",
    "late": "overdue breached",
    "lease": "lock locked reservation reserved",
    "in flight": "active",
    "quota": "throttle throttled",
    "slot or share": "permit permits",
    "attempt": "try tries execution executions",
    "tick": "iteration sweep",
    "rescue": "reap reaped reaper reclaim reclaimed recover recovered",
    "requeue": "replay replayed revive revived",
    "bury or dead": "discard discarded archive archived",
    "snooze": "defer deferred reschedule rescheduled",
    "prune": "purge purged vacuumed clean cleaned cleanup",
    "schedule": "cron periodic",
    "workflow": "dag pipeline chain",
    "event": "signal signals notification",
    "finished": "terminal completed complete final",
}
NEVER = {word: ours for ours, words in SAY_INSTEAD.items() for word in words.split()}

# (word, where, reason): `where` is a file, a folder, or a name that may be used anywhere.
OTHER_MEANINGS = (
    ("task", "runtime/loop.py", "an asyncio task"),
    ("task", "worker/attempt.py", "an asyncio task"),
    ("task", "worker/worker.py", "an asyncio task"),
    ("tasks", "scheduler/loop.py", "an asyncio TaskGroup"),
    ("tasks", "worker/worker.py", "asyncio tasks"),
    ("body", "transport/wire.py", "the body of an SQS message"),
    ("body", "store/migrate.py", "the body of a DO block"),
    ("body", "store/queries.py", "the body of a named statement"),
    ("args", "worker/heartbeat.py", "arguments handed through to a callback"),
    ("params", "store/claims.py", "the parameters of a statement"),
    ("params", "store/demand.py", "the parameters of a statement"),
    ("params", "store/forecast.py", "the parameters of a statement"),
    ("params", "store/door.py", "the parameters of a statement, as the driver calls them"),
    ("params", "store/enqueue.py", "the parameters of a statement"),
    ("params", "store/jobs.py", "the parameters of a statement"),
    ("params", "store/ladder.py", "the parameters of a statement"),
    ("params", "store/late.py", "the parameters of a statement"),
    ("params", "store/lease_keeper.py", "the parameters of a statement"),
    ("params", "store/slo.py", "the parameters of a statement"),
    ("params", "store/turn.py", "the parameters of a statement"),
    ("topic", "store/queries.py", "which .sql file"),
    ("topic", "store/hints.py", "what a hint is about"),
    ("topics", "store/hints.py", "what hints are about"),
    ("topic", "store/jobs.sql", "what a hint is about"),
    ("topics", "store/jobs.sql", "what hints are about"),
    ("topic", "store/turn.sql", "what a hint is about"),
    ("topics", "store/turn.sql", "what hints are about"),
    ("topics", "store/jobs.py", "what hints are about"),
    ("topics", "service.py", "what hints are about"),
    ("topics", "steering.py", "what hints are about"),
    ("topic", "worker/recorder.py", "what a hint is about"),
    ("topics", "worker/recorder.py", "what hints are about"),
    ("topics", "worker/reporter.py", "what hints are about"),
    ("topic", "assembly.py", "what a hint is about"),
    ("channel", "store/hints.py", "PostgreSQL's word for what LISTEN names"),
    ("bus", "Bus", "carries events inside the process; the transport is never called so"),
    ("bus", "bus", "an instance of Bus"),
    ("bus", "_bus", "an instance of Bus"),
    ("expiry", "next_expiry_in_seconds", "when a lease runs out: leases do expire"),
    ("lock", "lock_use_case", "a PostgreSQL advisory lock"),
    ("lock", "lock_tenants", "a PostgreSQL advisory lock"),
    ("lock", "_LOCK_USE_CASE", "a PostgreSQL advisory lock"),
    ("lock", "_LOCK_TENANTS", "a PostgreSQL advisory lock"),
    ("lock", "pg_advisory_xact_lock", "PostgreSQL's function"),
    ("lock", "pg_try_advisory_xact_lock", "PostgreSQL's function"),
    ("try", "pg_try_advisory_xact_lock", "PostgreSQL's function"),
    ("claim", "worker/slots.py", "a free slot is claimed, never a job"),
    ("claimed", "worker/slots.py", "slots, never jobs"),
    ("tries", "store/door.py", "tries of one statement after a deadlock"),
    ("tries", "transport/sqs.py", "tries of one request to a queue"),
    ("recovered", "telemetry/events.py", "a loop that works again, not a job"),
    ("signal", "errors.py", "what a handler raises to end its attempt; no event"),
    ("signals", "runtime/signals.py", "signals of the operating system"),
    ("body", "api/", "the body of a request"),
    ("group", "dev/", "a process group of the operating system"),
    ("signal", "dev/", "signals of the operating system"),
    ("signals", "dev/", "signals of the operating system"),
    ("final", "dev/child.py", "a child that will not be started again"),
    ("active", "store/doctor.sql", "PostgreSQL's word for a replication slot that is read"),
    ("vacuum", "store/migrations/0001_jobs.sql", "PostgreSQL's setting"),
)

LOG_LINES = (("ready", "ProcessStarted", "a process that has started, not a job"),)

HEADINGS = (
    ("try", "How to try a policy", "to see what it does; no attempt of a job"),
    ("lock", "lock, count, lease", "a PostgreSQL advisory lock"),
    ("task", "Task Definition", "the word of ECS"),
    ("notification", "Notifications", "the name of a use case"),
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SQL_COMMENT = re.compile(r"--(?! name:).*")
_SQL_TEXT = re.compile(r"'[^']*'")
_SQL_NAME = re.compile(r"\b[a-z_][a-z_0-9]*\b")
_CODE_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def test_identifiers_use_the_words_of_the_glossary() -> None:
    _none(_unexplained(_identifiers()))


def test_sql_names_use_the_words_of_the_glossary() -> None:
    _none(_unexplained(_sql_names()))


def test_log_lines_use_the_words_of_the_glossary() -> None:
    excused = {(word, event) for word, event, _ in LOG_LINES}
    wrong = [
        (event.__name__, f"{word}: say {NEVER[word]}")
        for event, (_, wording) in _WORDING.items()
        for word in _words(re.sub(r"\{[^}]*\}", "", wording))
        if word in NEVER and (word, event.__name__) not in excused
    ]

    assert wrong == []


def test_headings_use_the_words_of_the_glossary() -> None:
    excused = {(word, heading) for word, heading, _ in HEADINGS}
    wrong = [
        (page, heading, f"{word}: say {NEVER[word]}")
        for page, heading in _headings()
        for word in _words(heading)
        if word in NEVER and not any(word == one and said in heading for one, said in excused)
    ]

    assert wrong == []


def test_every_excuse_is_still_needed() -> None:
    used = [*_identifiers(), *_sql_names()]
    needed = {
        (word, where)
        for file, name in used
        for word in _words(name)
        for where in _places(file, name)
    }

    assert [one for one in OTHER_MEANINGS if one[:2] not in needed] == []


def _none(found: list[str]) -> None:
    if found:
        pytest.fail("Words that the glossary rules out:\n" + "\n".join(found), pytrace=False)


def _unexplained(names: Iterator[tuple[str, str]]) -> list[str]:
    excused = {(word, where) for word, where, _ in OTHER_MEANINGS}
    return sorted(
        {
            f"{file}: {name}: say {NEVER[word]}, not {word}"
            for file, name in names
            for word in _words(name)
            if word in NEVER and not {(word, one) for one in _places(file, name)} & excused
        }
    )


def _places(file: str, name: str) -> tuple[str, str, str]:
    """What an excuse may say about where *name* stands."""
    return file, f"{file.rpartition('/')[0]}/", name


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _identifiers() -> Iterator[tuple[str, str]]:
    """(file, name) for every name that the library gives to something."""
    for path in python_files():
        file = place(path)
        if file.startswith("embedded/"):
            continue
        yield from ((file, part) for part in path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(parsed(path)):
            yield from ((file, name) for name in _names_given_by(node))


def _names_given_by(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
        case _:
            return []


def _sql_names() -> Iterator[tuple[str, str]]:
    """(file, name) for every lower-case word of the statements: names, never keywords."""
    for path in sql_files():
        text = _SQL_TEXT.sub("", _SQL_COMMENT.sub("", path.read_text("utf-8")))
        yield from ((place(path), name) for name in _SQL_NAME.findall(text))


def _headings() -> Iterator[tuple[str, str]]:
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text = _CODE_FENCE.sub("", page.read_text("utf-8"))
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
            yield page.relative_to(ROOT).as_posix(), heading
