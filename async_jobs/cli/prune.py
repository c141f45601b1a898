"""`async-jobs prune`: deletes finished jobs that are old, now and by hand.

Schedulers prune by the configured retention, so this is for what they do not do: jobs of a use
case that is no longer configured, room that is needed at once. It counts, asks, deletes in small
batches, each a statement of its own, and leaves a line in the audit before the first one and one
after the last. Exit code 0: done, or nothing to do. 1: stopped before the end, not wanted after
all, or the database cannot be reached. 2: the command line or the configuration cannot be used.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.cli.service import AsJson, operator
from async_jobs.models import JobStatus
from async_jobs.runtime.signals import exit_on_term

if TYPE_CHECKING:
    from collections.abc import Callable

    from async_jobs.config import AsyncJobsConfig
    from async_jobs.store.jobs import JobStore

    Advance = Callable[[int], None]

COUNTED_AT_ONCE = 10_000
DELETED_AT_ONCE = 1_000
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_AGE = re.compile(r"(\d{1,10})([smhd]?)")


class Finished(StrEnum):
    """The statuses that end a job."""

    SUCCEEDED = JobStatus.SUCCEEDED.value
    DEAD = JobStatus.DEAD.value
    CANCELLED = JobStatus.CANCELLED.value


def prune(
    older_than: Annotated[
        str, typer.Option(help="Finished longer ago than that: 30d, 12h, 45m, or seconds.")
    ],
    status: Annotated[
        list[Finished] | None, typer.Option(help="Only with this status; repeatable.")
    ] = None,
    use_case: Annotated[
        list[str] | None,
        typer.Option(help="Only of this use case, configured or not; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete finished jobs that are old, of every configured use case unless told otherwise."""
    from async_jobs.cli.process import run_process

    if not (dry_run or yes or sys.stdin.isatty()):
        raise typer.BadParameter("nobody can be asked here; give --yes, or --dry-run to count")
    age = _AGE.fullmatch(older_than.strip())
    if age is None:
        raise typer.BadParameter("must be a number with s, m, h or d, for example 30d")
    statuses = [each.value for each in status or Finished]
    asked = Asked(use_case or (), statuses, float(age[1]) * _UNITS[age[2]])
    run_process(lambda: _run(asked, dry_run, yes, as_json))


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to go; the age is counted from the beginning, however long it takes."""

    use_cases: Sequence[str]
    statuses: Sequence[str]
    older_than_seconds: float
    began_at: float = field(default_factory=time.monotonic)

    @property
    def retention_seconds(self) -> float:
        """The age to ask for now."""
        return self.older_than_seconds + time.monotonic() - self.began_at


async def _run(asked: Asked, dry_run: bool, yes: bool, as_json: bool) -> None:
    from async_jobs.assembly import process_name
    from async_jobs.cli.process import opened, read_config
    from async_jobs.runtime.signals import on_stop

    config, _ = read_config(None)
    name = process_name("async-jobs-operator")
    async with opened(config, name=name, init_db=False, connections=1) as (store, _):
        stop = asyncio.Event()
        on_stop(stop.set)
        pruning = Pruning(store, asked, stop)
        found = await pruning.count(_names(asked, config))
        jobs = sum(map(Counter.total, found.values()))
        if not as_json or not (yes or dry_run):
            typer.echo("\n".join(counted(found)), err=as_json)
        wanted = jobs and not dry_run and (yes or await _confirmed(jobs, stop))
        deleted = await pruning.delete(found) if wanted and not stop.is_set() else 0
    typer.echo(_as_json(asked, found, deleted) if as_json else told(jobs, deleted, dry_run))
    if jobs and not dry_run and (stop.is_set() or not wanted):
        raise typer.Exit(1)


class Pruning:
    """Counts and deletes, batch by batch, until it is to *stop*."""

    def __init__(self, store: JobStore, asked: Asked, stop: asyncio.Event) -> None:
        self._store = store
        self._asked = asked
        self._stop = stop

    async def count(self, use_cases: Sequence[str]) -> dict[str, Counter[str]]:
        """How many jobs of each use case and status are to go."""
        with _progress("counting", None) as advance:
            return {name: await self._count(name, advance) for name in use_cases}

    async def delete(self, found: Mapping[str, Counter[str]]) -> int:
        """Delete what was *found*; how many jobs went."""
        deleted = 0
        with _progress("deleting", sum(map(Counter.total, found.values()))) as advance:
            for name, counts in found.items():
                if counts and not self._stop.is_set():
                    deleted += await self._delete(name, counts.total(), advance)
        return deleted

    async def _count(self, use_case: str, advance: Advance) -> Counter[str]:
        from async_jobs.store.retention import Pruned

        counts: Counter[str] = Counter()
        last = Pruned(seen=COUNTED_AT_ONCE)
        while last.seen == COUNTED_AT_ONCE and not self._stop.is_set():
            by_status, last = await self._store.retention.count_old(
                use_case,
                retention_seconds=self._asked.retention_seconds,
                last=last,
                most=COUNTED_AT_ONCE,
            )
            counts.update({one: by_status.get(one, 0) for one in self._asked.statuses})
            advance(last.seen)
        return +counts

    async def _delete(self, use_case: str, expected: int, advance: Advance) -> int:
        from async_jobs.store.retention import Pruned

        await self._write_down(use_case, expected=expected)
        deleted, last = 0, Pruned(seen=DELETED_AT_ONCE)
        try:
            while last.seen == DELETED_AT_ONCE and not self._stop.is_set():
                last = await self._store.retention.prune_by_status(
                    use_case,
                    [JobStatus(one) for one in self._asked.statuses],
                    retention_seconds=self._asked.retention_seconds,
                    last=last,
                    most=DELETED_AT_ONCE,
                )
                deleted += last.jobs
                advance(last.jobs)
        finally:
            await self._write_down(use_case, deleted=deleted)
        return deleted

    async def _write_down(self, use_case: str, **jobs: int) -> None:
        told = {
            "older_than_seconds": self._asked.older_than_seconds,
            "statuses": list(self._asked.statuses),
        }
        await self._store.steering.write_audit(
            actor=operator(), move="prune", use_case=use_case, after={**told, **jobs}
        )


def _names(asked: Asked, config: AsyncJobsConfig) -> list[str]:
    from async_jobs.config import canonical_name

    return list(dict.fromkeys(map(canonical_name, asked.use_cases or config.use_cases)))


@contextmanager
def _progress(doing: str, jobs: int | None) -> Iterator[Advance]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        shown = progress.add_task(doing, total=jobs)
        yield lambda more: progress.advance(shown, more)


async def _confirmed(jobs: int, stop: asyncio.Event) -> bool:
    """Ask; a signal, or an answer that is not yes, is a no."""
    typer.echo(f"Delete {jobs} finished jobs? [y/N] ", nl=False, err=True)
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    loop.add_reader(sys.stdin, answered.set)
    waits = [asyncio.ensure_future(event.wait()) for event in (answered, stop)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin)
        for each in waits:
            each.cancel()
        await asyncio.wait(waits)
    return answered.is_set() and sys.stdin.readline().strip().lower() in ("y", "yes")


def counted(found: Mapping[str, Counter[str]]) -> list[str]:
    """`use_case=mail succeeded=120 dead=3`: a line for each use case with something to go."""
    return [
        " ".join([f"use_case={name}", *(f"{one}={jobs}" for one, jobs in sorted(counts.items()))])
        for name, counts in found.items()
        if counts
    ] or ["No finished job is that old."]


def told(jobs: int, deleted: int, dry_run: bool) -> str:
    """What was done, in a sentence."""
    return f"{jobs} jobs would go." if dry_run else f"Deleted {deleted} of {jobs} jobs."


def _as_json(asked: Asked, found: Mapping[str, Counter[str]], deleted: int) -> str:
    return json.dumps(
        {
            "older_than_seconds": asked.older_than_seconds,
            "found": {name: dict(counts) for name, counts in found.items()},
            "deleted": deleted,
        }
    )


def main() -> None:
    """For `python -m async_jobs.cli.prune`."""
    exit_on_term()
    run_command(prune)


if __name__ == "__main__":
    main()
