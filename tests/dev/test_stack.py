"""The whole of `async-jobs dev`, with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from dev_run import DevRun, wait_for

from async_jobs.embedded.sqs.server import SqsServer

pytestmark = pytest.mark.slow

NewRun = Callable[..., DevRun]

HANDLERS = """
from async_jobs.registry import job_registry

@job_registry.handler("version")
async def version(ctx, payload):
    return {{"version": {version}}}
"""


@pytest.fixture
def project() -> Iterator[Path]:
    """A project's folder that every user can reach, unlike `tmp_path`."""
    path = Path(tempfile.mkdtemp(prefix="aj-dev-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def new_run(project: Path) -> Iterator[NewRun]:
    """Starts runs in the project; they are gone after the test."""
    made: list[DevRun] = []

    def new(*options: str, **env: str) -> DevRun:
        made.append(DevRun(project, *options, **env))
        return made[-1]

    yield new
    for run in made:
        run.clean_up()


def nothing_left(run: DevRun) -> bool:
    return run.left_over() == []


def test_a_job_runs_and_ctrl_c_leaves_nothing(new_run: NewRun) -> None:
    run = new_run()
    result = run.result_of(run.enqueue(name="Ada"))

    assert result["greeting"] == "Hello, Ada!"
    assert run.stop(signal.SIGINT) == 0
    assert run.left_over() == []


def test_killed_parts_come_back_and_the_next_job_runs(new_run: NewRun) -> None:
    run = new_run("--workers", "1")
    run.result_of(run.enqueue())
    killed = [
        *run.pids("async_jobs.cli.worker"),
        *run.pids("async_jobs.embedded.sqs"),
        *run.pids("async_jobs.cli.scheduler"),
        *run.pids("postgres -D"),
    ]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "PostgreSQL has ended; starts again" in run.output())

    def enqueued() -> str | None:
        status, answer = run.call(
            "POST",
            "/jobs/enqueue",
            {
                "tenant_id": "acme",
                "use_case": "notifications",
                "queue": "notifications",
                "type": "hello",
                "payload": {},
                "dedupe_key": "after the kill",
            },
        )
        return str(answer["job_id"]) if status < 300 else None

    assert len(killed) == 4
    assert run.result_of(wait_for(enqueued))


def test_kill_9_leaves_nothing_and_the_data_survives_it(new_run: NewRun) -> None:
    first = new_run("--transport", "postgres")
    job_id = first.enqueue(name="Ada")
    first.result_of(job_id)
    first.process.kill()
    wait_for(lambda: nothing_left(first))
    second = new_run("--transport", "postgres")

    assert second.result_of(job_id)["greeting"] == "Hello, Ada!"


def test_fresh_throws_the_data_away(new_run: NewRun) -> None:
    first = new_run("--transport", "postgres", "--workers", "0")
    job_id = first.enqueue()
    first.stop()
    second = new_run("--transport", "postgres", "--workers", "0", "--fresh")

    assert second.call("GET", f"/jobs/{job_id}")[0] == 404


def test_a_closed_terminal_leaves_nothing(new_run: NewRun) -> None:
    run = new_run("--transport", "postgres")

    assert run.stop(signal.SIGHUP) == 0
    assert run.left_over() == []


def test_with_reload_a_change_of_the_handlers_is_taken_up(new_run: NewRun, project: Path) -> None:
    handlers = project / "shop_handlers.py"
    handlers.write_text(HANDLERS.format(version=1))
    run = new_run(
        *("--handlers", "shop_handlers", "--reload"),
        *("--transport", "postgres", "--workers", "1"),
    )
    before = run.result_of(run.enqueue("version"))

    def changed() -> object:
        handlers.write_text(HANDLERS.format(version=22))
        return run.result_of(run.enqueue("version"))["version"] == 22

    assert before == {"version": 1}
    assert wait_for(changed)


def test_a_given_database_and_sqs_server_are_used(new_run: NewRun, database: str) -> None:
    with SqsServer.in_thread() as server:
        run = new_run("--database-url", database, "--sqs-endpoint", server.endpoint_url)
        job_id = run.enqueue()
        run.result_of(job_id)
        own = [*run.pids("postgres -D"), *run.pids("async_jobs.embedded.sqs")]
        run.stop()
    with psycopg.connect(database) as conn:
        row = conn.execute("SELECT status FROM jobs WHERE id = %s", [job_id]).fetchone()

    assert row == ("succeeded",)
    assert own == []


def test_a_second_run_in_the_same_project_is_refused(new_run: NewRun) -> None:
    new_run("--transport", "postgres", "--workers", "0")
    second = new_run("--transport", "postgres", "--workers", "0")

    assert second.process.wait(60) == 1
    assert "Another async-jobs dev uses" in second.output()


def test_handlers_that_do_not_exist_are_told_before_anything_starts(new_run: NewRun) -> None:
    run = new_run("--handlers", "no_such_module")

    assert run.process.wait(60) == 2
    assert "--handlers: no module 'no_such_module'" in run.output()
