"""Operators steer real schedulers and workers: a pause starts nothing, a stop is a polite one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from moving_parts import open_store

from async_jobs.service import JobService

from .conftest import MakeStage
from .stage import Process, Stage

PAUSED, OTHER = "flow", "side"


class Attentive(Stage):
    """Its processes ask for orders three times a second instead of three times a minute."""

    def program(self, role: str) -> list[str]:
        text = (
            "from async_jobs.runtime import presence; presence.EVERY_SECONDS = 0.3; "
            f"from async_jobs.cli import {role}; {role}.main()"
        )
        return ["-c", text]

    def seen(self, role: str) -> list[tuple[Any, ...]]:
        """Name, when it was last seen, and what it tells of itself."""
        sql = "SELECT name, seen_at, serves FROM jobs_processes WHERE role = %s"
        return self.query(sql, role)

    async def has_taken_orders(self, role: str) -> None:
        """The process has asked twice from now on: what the first answer said is in force."""
        for _ in range(2):
            last = self.seen(role)[0][1]
            await self.until("it was seen again", lambda last=last: self.seen(role)[0][1] > last)  # type: ignore[misc] # a default binds it


@pytest.fixture
def stage(make_stage: MakeStage) -> Attentive:
    made = make_stage(ASYNC_JOBS_SIDE_MAX_CONCURRENT="10")
    return Attentive(made.dsn, made.queue_url, made.folder, made.settings, made.processes)


@pytest_asyncio.fixture
async def operator(stage: Attentive) -> AsyncIterator[JobService]:
    async with open_store(stage.dsn) as store:
        yield stage.service(store)


async def enqueue(operator: JobService, use_case: str) -> Any:
    enqueued = await operator.enqueue(
        tenant_id="acme", use_case=use_case, type="note", payload={"n": 1}
    )
    return enqueued.job_id


async def stopped(operator: JobService, stage: Attentive, role: str, process: Process) -> int:
    """The exit code of a process that was asked to stop."""
    [[name, *_]] = stage.seen(role)
    assert await operator.stop_process(name, actor="ada")
    return process.exit_code()


@pytest.mark.parametrize("transport", ["postgres"], indirect=True, scope="module")
async def test_a_paused_use_case_starts_nothing_and_a_stop_ends_processes_politely(
    stage: Attentive, operator: JobService
) -> None:
    scheduler, worker = stage.scheduler(), stage.start("worker")
    for role in ("scheduler", "worker"):
        await stage.until(f"a {role} is seen", lambda role=role: stage.seen(role))  # type: ignore[misc] # a default binds it

    await operator.pause(PAUSED, actor="ada")
    await stage.has_taken_orders("scheduler")
    held = await enqueue(operator, PAUSED)
    for _ in range(3):
        await stage.all_succeeded([await enqueue(operator, OTHER)])
    why = await operator.explain(held)

    assert stage.runs_of(held) == 0
    assert (why.state, why.causes[0].code) == ("waiting", "paused")

    await operator.resume(PAUSED, actor="ada")
    await stage.all_succeeded([held])
    [[_, _, told]] = stage.seen("worker")
    codes = [
        await stopped(operator, stage, role, process)
        for role, process in (("worker", worker), ("scheduler", scheduler))
    ]

    assert codes == [0, 0], stage.logs()
    assert await operator.processes() == []
    assert {"lag_seconds", "tick_seconds"} <= told.keys()
    moves = [line.move for line in await operator.audit()]
    assert moves == ["stop", "stop", "resume", "pause"]
