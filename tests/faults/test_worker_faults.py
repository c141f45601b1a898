"""Workers that die, stop, stand still, or run handlers that do what no handler should."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flows.stage import Process
from starvation import Stopwatch

from .conftest import MakeRun
from .ground import (
    GRACE_SECONDS,
    INTERVAL_SECONDS,
    LEASE_SECONDS,
    LENGTH,
    POLL_SECONDS,
    RECOVERY_SECONDS,
    SQS,
    TABLE,
    Run,
)

pytestmark = pytest.mark.slow

ENDINGS = (
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "CancelledError",
    "BaseExceptionGroup",
    "MemoryError",
)
ODD = (
    "object",
    "nan",
    "large",
    "nul",
    "surrogate",
    "circle",
    "generator",
    "async generator",
    "bytes",
)


async def stops(process: Process, *, within_seconds: float) -> None:
    """SIGTERM, and a timely exit with code 0."""
    watch = Stopwatch()
    process.send(signal.SIGTERM)
    code = await asyncio.to_thread(process.exit_code)
    assert code == 0, process.log
    assert watch.seconds <= within_seconds, process.log


async def test_f01_kill_9_amid_handlers(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    for number in range(int(3 * LENGTH)):
        jobs = await run.put(10, seconds=1.0)
        await run.until("all are entered", lambda jobs=jobs: run.entered(jobs) >= 10)  # type: ignore[misc] # a default binds it
        run.worker()
        run.kill(run.processes[number + 1])
        # A ticket that the next kill takes along would cost its job another lease.
        await run.recovered()
    await run.drained()

    figures = run.verify()

    # A worker may die before a handler is entered, or after it ended and before that is written.
    recoveries = [seconds for seconds in run.recoveries() if seconds is not None]
    assert 0 < len(recoveries) <= figures["rescued"]
    assert max(recoveries) <= RECOVERY_SECONDS
    assert figures["doubles"] <= figures["rescued"]


async def test_f02_sigterm_with_short_jobs(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    victims = [run.worker() for _ in range(int(2 * LENGTH))]
    await run.started()
    await run.put(int(600 * LENGTH), seconds=0.1)
    for number, victim in enumerate(victims):
        await run.running(60 * (number + 1))
        await stops(victim, within_seconds=GRACE_SECONDS + 1)
    await run.drained()

    figures = run.verify()

    assert figures["runs"] == figures["jobs"]
    assert run.number("SELECT max(attempts) FROM jobs") == 1


async def test_f03_sigterm_with_a_handler_longer_than_the_grace(make_run: MakeRun) -> None:
    run = make_run()
    first = run.worker()
    run.scheduler()
    let_go = run.file("let-go")
    jobs = await run.put(4, type="hold", until=str(let_go), max_attempts=1)
    await run.running(4)
    run.worker()
    await run.started()

    await stops(first, within_seconds=GRACE_SECONDS + 2)
    watch = Stopwatch()
    await run.until("they run elsewhere", lambda: run.entered(jobs) == 8)
    seconds = watch.seconds
    let_go.touch()
    await run.drained()

    figures = run.verify()
    assert seconds <= INTERVAL_SECONDS + POLL_SECONDS + 1
    assert (figures["succeeded"], figures["rescued"]) == (4, 0)
    assert run.number("SELECT max(attempts) FROM jobs") == 1


@pytest.mark.parametrize("use_case", [SQS, TABLE])
async def test_f05_a_zombie_reports_after_its_job_was_given_to_another(
    make_run: MakeRun, use_case: str
) -> None:
    run = make_run()
    zombie = run.worker()
    run.scheduler()
    first, second = run.file("first"), run.file("second")
    [job_id] = await run.put(
        1, type="hold", use_cases=[use_case], until_1=str(first), until=str(second)
    )
    await run.running(1)
    zombie.send(signal.SIGSTOP)
    heir = run.worker()
    await run.until("another runs it", lambda: run.entered([job_id]) == 2)
    heirs = run.query("SELECT status, lease_seq FROM jobs")

    first.touch()
    zombie.send(signal.SIGCONT)
    await run.until("the zombie is refused", lambda: "outcome dropped" in zombie.log)
    assert run.query("SELECT status, lease_seq FROM jobs") == heirs
    second.touch()
    await run.drained()
    run.kill(heir)
    more = await run.put(20)
    await run.drained()

    run.verify()
    assert zombie.log.count("outcome dropped") == 1
    assert run.query("SELECT status, attempts FROM jobs WHERE id = %s", job_id) == [
        ("succeeded", 2)
    ]
    assert {words[3] for words in run.lines() if words[0] in map(str, more)} == {
        str(zombie.popen.pid)
    }


async def test_f07_a_job_that_kills_its_worker(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler()
    [poison] = await run.put(1, type="poison", use_cases=[SQS], max_attempts=2)
    await run.put(int(40 * LENGTH), seconds=0.05)
    with run.outage():
        while run.query("SELECT FROM jobs WHERE finished_at IS NULL"):
            if not run.processes[-1].is_running or len(run.processes) == 1:
                run.worker()
            await asyncio.sleep(0.1)

    run.verify()
    assert run.entered([poison]) == 2
    assert run.query("SELECT status, last_error ->> 'type' FROM jobs WHERE id = %s", poison) == [
        ("dead", "WorkerLost")
    ]
    assert run.number("SELECT count(*) FROM jobs WHERE status <> 'succeeded'") == 1


async def test_f08_a_handler_that_blocks_the_event_loop(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.started()
    await run.put(8, seconds=LEASE_SECONDS + 0.5)
    await run.running(8)
    with run.outage():
        await run.put(1, type="block", use_cases=[TABLE], seconds=LEASE_SECONDS + 1)
        await run.drained()

    figures = run.verify()
    assert (figures["succeeded"], figures["runs"], figures["rescued"]) == (9, 9, 0)


async def test_f10_handlers_that_raise_what_ends_a_process(make_run: MakeRun) -> None:
    run = make_run()
    worker = run.worker()
    run.scheduler()
    for what in ENDINGS:
        await run.put(int(2 * LENGTH), type="raises", what=what, max_attempts=2)
    await run.put(20)
    await run.drained()

    figures = run.verify()
    assert worker.is_running
    assert figures["dead"] == len(ENDINGS) * int(2 * LENGTH)
    assert run.number("SELECT min(attempts) FROM jobs WHERE status = 'dead'") == 2
    run.ends_well()


async def test_f12_handlers_that_return_what_cannot_be_stored(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    for what in ODD:
        await run.put(2, type="returns", what=what, max_attempts=3)
    await run.drained()

    run.verify()
    again = "attempts > 2 AND last_error ->> 'type' <> 'WorkerLost'"
    assert run.number(f"SELECT count(*) FROM jobs WHERE {again}") == 0
    assert run.number("SELECT max(octet_length(result::text)) FROM jobs") < 300_000
    run.ends_well()


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "--pid", "--fork", "true"], check=False, capture_output=True)
    return done.returncode == 0


# Only a new PID namespace makes a process PID 1, and plain users may be denied one.
@pytest.mark.skipif(not _can_unshare(), reason="only root may make a process PID 1")
@pytest.mark.parametrize("role", ["worker", "scheduler"])
async def test_f13_a_process_that_is_pid_1_obeys_sigterm(make_run: MakeRun, role: str) -> None:
    run = make_run()
    outer = _started_as_pid_1(run, role)
    await run.started()
    watch = Stopwatch()

    os.kill(_only_child(outer.popen.pid), signal.SIGTERM)

    code = await asyncio.to_thread(outer.exit_code)
    assert code == 0, run.logs()
    assert watch.seconds <= GRACE_SECONDS + 2


def _started_as_pid_1(run: Run, role: str) -> Process:
    log = run.file("pid-1.log")
    command = ["unshare", "--pid", "--fork", sys.executable, "-m", f"async_jobs.cli.{role}"]
    with log.open("wb") as output:
        popen = subprocess.Popen(command, env=run.env, stdout=output, stderr=output)
    run.processes.append(Process("pid-1", popen, log))
    return run.processes[-1]


def _only_child(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
