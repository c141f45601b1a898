"""`async-jobs top`: every use case live, by the questions that the dashboard asks.

On a terminal it fills the screen until Ctrl-C, elsewhere each sample is some plain lines, with
`--json` one line of JSON. While the database is away it says so and goes on. Exit code 0: it was
asked to end, or `--once` had its sample. 1: `--once` had none, or the schema is too old. 2: the
command line or the configuration cannot be used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.cli.service import AsJson
from async_jobs.cli.top_screen import Screen, plain_lines
from async_jobs.runtime.signals import exit_on_term

if TYPE_CHECKING:
    from async_jobs.config import AsyncJobsConfig
    from async_jobs.core.top import Sample
    from async_jobs.store.jobs import JobStore

ANSWER_SECONDS = 5.0


def top(
    use_case: Annotated[str | None, typer.Argument(help="One use case instead of all.")] = None,
    every: Annotated[
        float, typer.Option("--every-seconds", min=0.1, max=3_600, help="From look to look.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch every use case live: what waits and for how long yet, slots, promises, processes."""
    from async_jobs.cli.process import run_process

    run_process(lambda: _run(use_case, every, once, as_json))


async def _run(use_case: str | None, every: float, once: bool, as_json: bool) -> None:
    from async_jobs.cli.process import read_config
    from async_jobs.runtime.signals import on_stop

    # Warnings of connects that fail would run across the screen, which says it better.
    config, _ = read_config("ERROR")
    stop = asyncio.Event()
    on_stop(stop.set)
    async with _looking(config, once=once) as store:
        look = Look(config, store, use_case)
        with _view(as_json, once=once) as view:
            await _show(look, view, stop, every=0.0 if once else every)


async def _show(look: Look, view: Screen | Lines, stop: asyncio.Event, *, every: float) -> None:
    """Sample after sample until *stop*; with 0 seconds in between, one."""
    from async_jobs.errors import StoreUnavailable

    while not stop.is_set():
        found = await look.sample(stop)
        if found is None and not every:
            raise StoreUnavailable("The database gives no answer.")
        if not stop.is_set():
            view.show(found, datetime.now(UTC))
        if not every or await _is_set_within(every, stop):
            return


@asynccontextmanager
async def _looking(config: AsyncJobsConfig, *, once: bool) -> AsyncIterator[JobStore]:
    """A store; unless it is asked *once*, its database may come later, or go and come back."""
    from async_jobs.assembly import create_pool, process_name
    from async_jobs.cli.process import RECONNECT_SECONDS, opened
    from async_jobs.store.jobs import JobStore

    name = process_name("async-jobs-top")
    if once:
        async with opened(config, name=name, init_db=False, connections=1) as (store, _):
            yield store
        return
    pool = create_pool(config, application_name=name, max_size=1)
    pool.reconnect_timeout = RECONNECT_SECONDS
    try:
        await pool.open(wait=False)
        yield JobStore(pool)
    finally:
        await pool.close(timeout=1.0)


class Look:
    """Asks for samples, each within a time."""

    def __init__(self, config: AsyncJobsConfig, store: JobStore, use_case: str | None) -> None:
        from async_jobs.service import JobService

        self._service = JobService(config, store)
        self._store = store
        self._use_case = use_case
        self._schema_fits = False

    async def sample(self, stop: asyncio.Event) -> Sample | None:
        """One; None where there is no answer in time, or somebody asks to *stop* first."""
        asking = asyncio.ensure_future(self._ask())
        stopping = asyncio.ensure_future(stop.wait())
        both = {asking, stopping}
        try:
            await asyncio.wait(both, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            for each in both:
                each.cancel()
            await asyncio.wait(both)

    async def _ask(self) -> Sample | None:
        from async_jobs.core.top import sample
        from async_jobs.errors import StoreUnavailable
        from async_jobs.steering import paused_by

        try:
            if not self._schema_fits:
                await self._store.check_schema()
                self._schema_fits = True
            return sample(
                await self._service.slo(self._use_case),
                await self._service.processes(),
                paused_by=paused_by(await self._service.overrides()),
                at=datetime.now(UTC),
            )
        except StoreUnavailable:
            return None


async def _is_set_within(seconds: float, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _view(as_json: bool, *, once: bool) -> AbstractContextManager[Screen | Lines]:
    if sys.stdout.isatty() and not as_json:
        return Screen(once=once)
    return Lines(as_json=as_json)


class Lines(AbstractContextManager["Lines"]):
    """Each sample as lines that programs can read."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def show(self, found: Sample | None, now: datetime) -> None:
        """Print *found*; None says that the database gave no answer."""
        if self._as_json:
            told = {"at": now, "error": "no answer"} if found is None else asdict(found)
            typer.echo(json.dumps(told, default=_written))
        else:
            typer.echo("\n".join(plain_lines(found, now)))
        sys.stdout.flush()

    def __exit__(self, *ended: object) -> None:
        pass


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def main() -> None:
    """For `python -m async_jobs.cli.top`."""
    exit_on_term()
    run_command(top)


if __name__ == "__main__":
    main()
