"""One `async-jobs dev` in a process of its own, driven over its API."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from moving_parts import POOLED_SETTINGS

from async_jobs.dev.ground import free_port

PATIENCE_SECONDS = 60.0


def wait_for(condition: Callable[[], Any]) -> Any:
    """What *condition* gives as soon as that is true; fails when it does not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


class DevRun:
    """Runs the command in *project*; `api` is up when the constructor returns."""

    def __init__(self, project: Path, *options: str, **env: str) -> None:
        self.port = free_port()
        self._mark = uuid.uuid4().hex
        self._project = project
        self._output = project / f"output-{self._mark}"
        command = [sys.executable, "-m", "async_jobs.cli.dev", "--port", str(self.port), *options]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=project,
                env={**_bare_environment(), **POOLED_SETTINGS, **env, "DEV_RUN_MARK": self._mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_for(lambda: "is up after" in self.output() or self.process.poll() is not None)

    def output(self) -> str:
        return self._output.read_text()

    def call(self, method: str, path: str, content: object = None) -> tuple[int, Any]:
        """Status and answer of a request to the API."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(content), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def enqueue(self, type: str = "hello", **payload: object) -> str:
        """Enqueue a job; its id."""
        job = {"tenant_id": "acme", "use_case": "notifications", "queue": "notifications"}
        status, answer = self.call(
            "POST", "/jobs/enqueue", {**job, "type": type, "payload": payload}
        )
        assert status in (200, 201), answer
        return str(answer["job_id"])

    def result_of(self, job_id: str) -> Any:
        """The job's result, once it has succeeded."""

        def finished() -> Any:
            _, job = self.call("GET", f"/jobs/{job_id}")
            return job if job["status"] == "succeeded" else None

        return wait_for(finished)["result"]

    def pids(self, name: str) -> list[int]:
        """The processes of this run whose command line holds *name*."""
        return [pid for pid, command in self._processes() if name in command]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def left_over(self) -> list[str]:
        """Command lines of what is still alive."""
        return [command for _, command in self._processes()]

    def clean_up(self) -> None:
        """Kill whatever a failed test left."""
        self.process.kill()
        self.process.wait()
        for pid, _ in self._processes():
            os.kill(pid, signal.SIGKILL)

    def _processes(self) -> list[tuple[int, str]]:
        """Those with our mark in their environment, and the database, which has none."""
        ours = re.compile(f"DEV_RUN_MARK={self._mark}|{re.escape(str(self._project))}/")
        return [(pid, text) for pid, text in _running_processes() if ours.search(text)]


def _running_processes() -> Iterator[tuple[int, str]]:
    """Every process but zombies, with its command line and, where readable, its environment."""
    if not Path("/proc/self/environ").exists():
        listed = subprocess.run(
            ["ps", "axeww", "-o", "pid=,command="], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            pid, _, text = line.strip().partition(" ")
            yield int(pid), text
        return
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            texts = [(entry / name).read_bytes() for name in ("cmdline", "environ")]
            if texts[0]:  # empty for zombies
                yield int(entry.name), b" ".join(texts).replace(b"\0", b" ").decode(
                    errors="replace"
                )


def _bare_environment() -> dict[str, str]:
    ours = ("ASYNC_JOBS_", "AWS_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
