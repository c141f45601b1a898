"""Prints the generated parts of the documentation from the code: `python docs/generate.py`.

A generated part stands in a page between `<!-- generated: NAME -->` and
`<!-- end: NAME -->`; everything around it is written by hand. `tests/docs`
checks that what stands there is what this script would print.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer
from fastapi import FastAPI
from typer.main import get_command

from async_jobs import JobService, create_jobs_router, errors
from async_jobs.cli.config import settings_table
from async_jobs.cli.main import COMMANDS, function_of
from async_jobs.core.exposition import FIGURES, OF_ALL
from async_jobs.core.lifecycle import LIFECYCLE
from async_jobs.failpoints import POINTS
from async_jobs.models import JobStatus
from async_jobs.simulation.arrivals import COLUMNS as TRACE_COLUMNS
from async_jobs.simulation.arrivals import REQUIRED
from async_jobs.store.migrate import migrations
from async_jobs.telemetry import events, metrics

ROOT = Path(__file__).parents[1]
_PART = re.compile(r"<!-- generated: (\w+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)
_LENGTH = re.compile(r"^\| `(async_jobs/\S+)` \| \d+ \|", re.MULTILINE)

COLUMNS = {
    "id": "UUIDv7 made by the library, so ids are in order of time",
    "tenant_id": "Tenant identifier",
    "use_case": 'Use case, e.g. "notifications"',
    "type": "Job type: picks the handler",
    "queue": "Name of the queue the job's tickets travel through",
    "status": "`pending`, `running`, `succeeded`, `dead` or `cancelled`",
    "payload": "JSON object given to the handler",
    "run_at": "When the job should run; moves when it is retried, snoozed or rescued",
    "delay_tolerance": "How long after `run_at` a start still keeps the promise",
    "deadline_at": "Always `run_at + delay_tolerance`",
    "priority": "Among jobs with the same deadline, higher goes first",
    "attempts": "Attempts started and not given back",
    "max_attempts": "Attempts after which a failing job is dead",
    "backoff_policy": "How long to wait after a failed attempt; NULL for the default policy",
    "lease_expires_at": "When the lease runs out; NULL without a lease",
    "last_error": "What the last failed attempt raised, as JSON",
    "dedupe_key": "At most one unfinished job per tenant and key",
    "enqueue_failed": "Whether the last message was not accepted by the queue",
    "created_at": "When the job was stored",
    "updated_at": "When it was last changed; renewals of its lease do not count",
    "lease_seq": "The fence: grows by one with every lease",
    "due": "Whether the job waits: its time has come and nobody holds a lease",
    "leased_at": "Since when the job is in flight; NULL when it is not",
    "started_at": "When the last attempt started",
    "finished_at": "When the job finished; NULL until then",
    "is_retry": "Whether an earlier attempt was used up: retries get a tenth of the starts at most",
    "probe": "Whether this lease tries out a flow that a circuit breaker has shut",
    "first_started_at": "When the first attempt started: was the promise kept?",
    "first_run_at": "`run_at` as first promised; NULL until `run_at` moves",
    "cancel_requested_at": "When an operator asked a job to end",
    "result": "What the handler returned, as JSON",
    "worker": "Name of the process that started the last attempt",
    "timeout_seconds": "How long an attempt may take; NULL: as its type is registered",
    "trace_context": "W3C trace context of the enqueue: `traceparent`, `tracestate`; "
    "`previous`: the attempt before",
}


def environment() -> str:
    """Every environment variable."""
    return settings_table()


def lifecycle() -> str:
    """Every move of a job."""
    rows = [
        (
            f"**{rule.move}**",
            f"{_statuses(rule.from_statuses, '–')} → {_statuses(rule.to_statuses, 'gone')}",
            rule.actor,
            rule.needs,
        )
        for rule in LIFECYCLE
    ]
    return _table(("move", "from → to", "who", "needs"), rows)


def event_catalogue() -> str:
    """Every event with its meaning and its own fields."""
    rows = [(f"`{cls.__name__}`", _first_line(cls), _fields(cls)) for cls in event_classes()]
    return _table(("event", "meaning", "fields"), rows)


def event_classes() -> list[type[events.Event]]:
    """The events that happen: those that no other event refines, in the order of the file."""
    known = [
        each
        for each in vars(events).values()
        if isinstance(each, type) and issubclass(each, events.Event)
    ]
    return [each for each in known if not any(each in other.__bases__ for other in known)]


def columns() -> str:
    """Every column of the table, in its order."""
    text = "".join(text for _, text in migrations())
    table = text.partition("CREATE TABLE")[2].partition("CONSTRAINT")[0]
    found = re.findall(r"^    ([a-z_]+) ([a-z]+)(.*?),?$", table, re.MULTILINE)
    found += re.findall(r"ALTER TABLE jobs ADD COLUMN IF NOT EXISTS (\w+) ([a-z ]+)(.*?);", text)
    rows = [
        (f"`{name}`", type, "" if "NOT NULL" in rest or "PRIMARY" in rest else "yes", COLUMNS[name])
        for name, type, rest in found
    ]
    return _table(("column", "type", "may be NULL", "meaning"), rows)


def indexes() -> str:
    """Every index, with the comment that stands above it."""
    text = "".join(text for _, text in migrations())
    found = re.findall(
        r"((?:-- [^\n]+\n)+)CREATE (UNIQUE )?INDEX IF NOT EXISTS (\w+)\s+ON jobs ([^;]*);", text
    )
    # A later migration may have made it anew.
    last = {
        name: (
            f"`{name}`" + (" (unique)" if unique else ""),
            f"`{' '.join(on.split())}`",
            " ".join(why.replace("-- ", "").split()),
        )
        for why, unique, name, on in found
    }
    return _table(("index", "on", "for"), list(last.values()))


def failpoint_table() -> str:
    """Every place that can be armed."""
    rows = [(f"`{name}`", meaning) for name, meaning in POINTS.items()]
    return _table(("place", "what has happened by then"), rows)


def error_tree() -> str:
    """The tree that opens `errors.py`."""
    tree = inspect.getdoc(errors) or ""
    drawn = tree[tree.index("AsyncJobsError") : tree.index("An error text")]
    return f"```text\n{inspect.cleandoc(drawn)}\n```\n"


def endpoints() -> str:
    """Every endpoint of the router, with its parameters and answers."""
    rows = [
        (
            f"`{place}`",
            operation["description"],
            ", ".join(f"`{each['name']}`" for each in operation.get("parameters", ())),
            ", ".join(sorted(operation["responses"])),
        )
        for place, operation in _operations().items()
    ]
    return _table(("endpoint", "what it does", "parameters", "answers"), rows)


def refusals() -> str:
    """Every status that refuses, and why."""
    found = {
        status: answer["description"]
        for operation in _operations().values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    }
    return _table(("status", "why"), sorted(found.items()))


def commands() -> str:
    """Every command with its options."""
    names = [(f"async-jobs {name}", name) for name in COMMANDS]
    names += [("async-jobs-scheduler", "scheduler"), ("async-jobs-worker", "worker")]
    return "\n".join(_command(spelt, name) for spelt, name in names)


def trace() -> str:
    """Every column of a trace."""
    rows = [
        (f"`{name}`", "yes" if name in REQUIRED else "", meaning)
        for name, meaning in TRACE_COLUMNS.items()
    ]
    return _table(("column", "needed", "meaning"), rows)


def instruments() -> str:
    """Every OpenTelemetry instrument."""
    rows = [(f"`{name}`", "counter", text) for name, text in metrics.COUNTERS.items()]
    rows += [(f"`{name}`", "histogram, s", text) for name, (text, _) in metrics.HISTOGRAMS.items()]
    rows += [(f"`{name}`", "gauge", text) for name, text in metrics.GAUGES.items()]
    return _table(("instrument", "kind", "says"), rows)


def figures() -> str:
    """Every figure that Prometheus is told."""
    rows = [(f"`async_jobs_{name}`", text) for name, (text, _) in {**FIGURES, **OF_ALL}.items()]
    return _table(("metric", "says"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "environment": environment,
    "failpoints": failpoint_table,
    "lifecycle": lifecycle,
    "events": event_catalogue,
    "columns": columns,
    "indexes": indexes,
    "errors": error_tree,
    "endpoints": endpoints,
    "refusals": refusals,
    "commands": commands,
    "trace": trace,
    "instruments": instruments,
    "figures": figures,
}


def pages() -> list[Path]:
    """Every page that people read: those in the root and those in docs/."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def refreshed(text: str) -> str:
    """*text* of a page with its generated parts printed anew."""
    return _PART.sub(lambda part: _marked(part.group(1)), text)


def recounted(text: str) -> str:
    """*text* of a page with the lengths of files in its tables counted anew."""
    return _LENGTH.sub(
        lambda row: f"| `{row.group(1)}` | {len((ROOT / row.group(1)).open().readlines())} |", text
    )


def _marked(name: str) -> str:
    return f"<!-- generated: {name} -->\n\n{PARTS[name]().strip()}\n\n<!-- end: {name} -->"


def _operations() -> dict[str, dict[str, Any]]:
    """Method and path → what the OpenAPI document says about it."""
    app = FastAPI()
    app.include_router(create_jobs_router(_no_service, require_auth_token=False))
    return {
        f"{method.upper()} {path}": operation
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    }


def _no_service() -> JobService:
    raise AssertionError("the OpenAPI document is made without serving a request")


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *([_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _statuses(statuses: Iterable[JobStatus], otherwise: str) -> str:
    return ", ".join(statuses) or otherwise


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0]


def _fields(cls: type[events.Event]) -> str:
    return ", ".join(f"`{field.name}`" for field in dataclasses.fields(cls))


def _command(spelt: str, name: str) -> str:
    """One command, read from the function that makes it."""
    function = function_of(name)
    app = typer.Typer(add_completion=False)
    app.command()(function)
    command = get_command(app)
    rows = [(_spelt(each), getattr(each, "help", None) or "") for each in command.params]
    options = _table(("option", "meaning"), rows) if rows else "No options.\n"
    return f"## `{spelt}`\n\n{inspect.getdoc(function)}\n\n{options}"


def _spelt(option: object) -> str:
    names = [name for name in getattr(option, "opts", ()) if name.startswith("-")]
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    for page in pages():
        text = page.read_text("utf-8")
        if (new := recounted(refreshed(text))) != text:
            page.write_text(new, "utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
