"""The demo: sends traffic through the HTTP API, shows what happens and sums it up.

`async-jobs dev --demo` runs `python -m examples.demo` in its foreground and says
by ASYNC_JOBS_API_URL, ASYNC_JOBS_ENQUEUE_AUTH_TOKEN, SMTP_HOST and SMTP_PORT
where everything is. Figures are read back from the API, and the letters are
counted a second time by the mail server; none is made up here.

It exits with 0 when every job of the run has finished, else with 1.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.live import Live

from async_jobs import AsyncJobsHttpClient, NewJob
from async_jobs.errors import ApiError, AsyncJobsError
from async_jobs.schemas import JobView
from examples.mail_server import ask_counts
from examples.report import (
    Figures,
    letters,
    progress_line,
    progress_table,
    reasons,
    summary_table,
)
from examples.traffic import TENANTS, Arrival, traffic

MOST_PER_PAGE = 100
MOST_PER_BATCH = 200
SEND_EVERY_SECONDS = 0.05
START_TIMEOUT_SECONDS = 30.0


class Run:
    """One run of the demo: what it has sent, and what the API says has become of it."""

    def __init__(self, client: AsyncJobsHttpClient, arrivals: Sequence[Arrival]) -> None:
        self.jobs: list[JobView] = []
        self.sent = 0
        self.is_over = False
        self.waits_for_quota = 0
        self.arrivals = arrivals
        self.began = time.monotonic()
        self._client = client
        self._ids: set[UUID] = set()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def twins(self) -> int:
        """How many of the sent jobs were there already under their dedupe_key."""
        return self.sent - len(self._ids)

    async def send(self) -> None:
        """Send every arrival when its moment comes, the tenants independent of one another."""
        by_tenant: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in self.arrivals:
            by_tenant[arrival.job.tenant_id].append(arrival)
        async with asyncio.TaskGroup() as group:
            for arrivals in by_tenant.values():
                group.create_task(self._send_all_of(arrivals))

    async def look(self) -> None:
        """Read the run's jobs back, page by page, newest first, until older ones come.

        The run is over when two looks after the last arrival show the same jobs, all finished:
        what the handlers of finished jobs enqueued would be in the second.
        """
        if not self._ids:
            return
        all_sent = self.sent == len(self.arrivals)
        oldest = min(self._ids)
        found: list[JobView] = []
        cursor: UUID | None = None
        while True:
            page = await self._client.list(limit=MOST_PER_PAGE, cursor=cursor, payloads=True)
            ours = [job for job in page.jobs if job.id >= oldest]
            found += [job for job in ours if job.tenant_id in TENANTS]
            cursor = page.next_cursor
            if cursor is None or len(ours) < len(page.jobs):
                break
        is_still = len(found) == len(self.jobs)
        self.is_over = all_sent and is_still and all(job.is_finished for job in found)
        self.jobs = found

    async def _send_all_of(self, arrivals: Sequence[Arrival]) -> None:
        at = 0
        while at < len(arrivals):
            waiting = arrivals[at].at_seconds - self.seconds
            await asyncio.sleep(max(SEND_EVERY_SECONDS, waiting))
            due = [each.job for each in arrivals[at:] if each.at_seconds <= self.seconds]
            batch = due[:MOST_PER_BATCH]
            if batch:
                await self._enqueue(batch)
            at += len(batch)

    async def _enqueue(self, batch: Sequence[NewJob]) -> None:
        """Enqueue all of *batch*, waiting for as long as the API asks us to."""
        while True:
            try:
                self._ids.update(await self._client.enqueue_many(batch))
            except ApiError as refused:
                if refused.retry_after_seconds is None:
                    raise
                self.waits_for_quota += 1
                await asyncio.sleep(refused.retry_after_seconds)
                continue
            self.sent += len(batch)
            return


class Screen:
    """Shows a run: a table that changes in a terminal, one line a second elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self.every_seconds = 0.25 if console.is_terminal else 1.0

    @contextmanager
    def open(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield

    def show(self, run: Run) -> None:
        now = datetime.now(UTC)
        line = progress_line(
            Figures.of(run.jobs, now=now),
            sent=run.sent,
            arrivals=len(run.arrivals),
            seconds=run.seconds,
        )
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)
        else:
            self._live.update(progress_table(run.jobs, line, now=now), refresh=True)

    def sum_up(self, run: Run, mail: str) -> None:
        self._console.print(summary_table(run.jobs, now=datetime.now(UTC)))
        follow_ups = len(run.jobs) - (run.sent - run.twins)
        self._say(
            f"{run.sent} jobs sent, {run.twins} of them twins that were not stored again; "
            f"{follow_ups} more enqueued by handlers. Took {run.seconds:.1f} s."
        )
        if run.waits_for_quota:
            self._say(f"Waited {run.waits_for_quota} times for a tenant's quota.")
        for reason in reasons(run.jobs):
            self._say(reason)
        self._say(mail)
        if not run.is_over:
            unfinished = sum(not job.is_finished for job in run.jobs)
            self._say(f"Not over: {unfinished} jobs have not finished. Is a worker running?")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


async def watch(run: Run, screen: Screen, *, patience_seconds: float) -> None:
    """Show the run until it is over, or until *patience_seconds* have passed."""
    while not run.is_over and run.seconds < patience_seconds:
        await asyncio.sleep(screen.every_seconds)
        await run.look()
        screen.show(run)


async def until_it_answers(client: AsyncJobsHttpClient) -> None:
    """Wait for the API to come up; raises TimeoutError if it does not."""
    async with asyncio.timeout(START_TIMEOUT_SECONDS):
        while True:
            try:
                await client.list(limit=1)
            except ApiError as error:
                if error.status is not None and error.status < 500:
                    raise
                await asyncio.sleep(0.1)
            else:
                return


class MailCount:
    """Asks the mail server what it has taken, to compare with what the jobs say."""

    def __init__(self) -> None:
        self._host = os.environ.get("SMTP_HOST", "127.0.0.1")
        self._port = int(os.environ.get("SMTP_PORT", "2525"))
        self._before = (0, 0)

    async def begin(self) -> None:
        self._before = await self._ask()

    async def report(self, run: Run) -> str:
        delivered, repeated = await self._ask()
        return (
            f"Mail: {letters(run.jobs)} letters delivered as the jobs say, "
            f"{delivered - self._before[0]} as the mail server counts "
            f"({repeated - self._before[1]} more came twice)."
        )

    async def _ask(self) -> tuple[int, int]:
        counts = await asyncio.to_thread(ask_counts, self._host, self._port)
        return counts.delivered, counts.repeated


async def demo(jobs: int, seconds: float, seed: int, patience_seconds: float) -> bool:
    """Run the demo; True if every job has finished."""
    url = os.environ.get("ASYNC_JOBS_API_URL", "http://127.0.0.1:8000")
    token = os.environ.get("ASYNC_JOBS_ENQUEUE_AUTH_TOKEN")
    screen = Screen(Console())
    mail = MailCount()
    async with AsyncJobsHttpClient(base_url=url, auth_token=token or None) as client:
        await until_it_answers(client)
        await mail.begin()
        arrivals = traffic(jobs, seconds, began_at=datetime.now(UTC), seed=seed)
        run = Run(client, arrivals)
        with screen.open():
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(run.send())
                await watch(run, screen, patience_seconds=patience_seconds)
                sending.cancel()
    screen.sum_up(run, await mail.report(run))
    return run.is_over


def main(
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs arrive.")] = 400,
    seconds: Annotated[float, typer.Option(min=0.1, help="Within how many seconds.")] = 20.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same traffic.")] = 1,
    patience_seconds: Annotated[
        float, typer.Option(help="Give up this long after the beginning.")
    ] = 120.0,
) -> None:
    """Send traffic to a running Async Jobs and show what becomes of it."""
    finished = False
    try:
        finished = asyncio.run(demo(jobs, seconds, seed, patience_seconds))
    except* (AsyncJobsError, OSError) as errors:
        for error in errors.exceptions:
            typer.echo(f"error: {error or 'the API did not come up'}", err=True)
    raise typer.Exit(0 if finished else 1)


if __name__ == "__main__":
    typer.run(main)
