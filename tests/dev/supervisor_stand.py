"""A supervisor in a process of its own, with stand-ins for what it supervises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SUPERVISED = Path(__file__).with_name("supervised.py")
PATIENCE_SECONDS = 30.0

# Says `NAME PID` in the journal when it is up, then does what it is told.
STAND_IN = """
import os, pathlib, signal, subprocess, sys, time
journal, name, manner = sys.argv[1:4]
def note(text):
    with open(journal, "a") as file:
        file.write(text + "\\n")
def leave(*_):
    note(f"{name} stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if manner == "deaf" else leave)
if manner == "parent":
    grandchild = subprocess.Popen(["sleep", "1000"])
    note(f"{name}-grandchild {grandchild.pid}")
print("hello from", name, flush=True)
note(f"{name} {os.getpid()}")
if manner == "crash-once":
    if pathlib.Path(journal).read_text().count(f"{name} ") == 1:
        sys.exit(7)
elif manner.isdigit():
    sys.exit(int(manner))
while True:
    time.sleep(1000)
"""


def has_ended(pid: int) -> bool:
    """True if the process is gone, or only waits to be reaped by a parent that is not ours."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when *condition* holds, fail when it does not come to hold."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Stand:
    """Starts the supervisor process and reads what it and its stand-ins say."""

    def __init__(self, folder: Path) -> None:
        self._journal = folder / "journal"
        self._output = folder / "output"
        self._journal.touch()
        self.process: subprocess.Popen[bytes] | None = None

    def part(self, name: str, manner: str = "good", **treatment: object) -> dict[str, object]:
        """A part whose stand-in behaves in this manner."""
        command = [sys.executable, "-I", "-S", "-c", STAND_IN, str(self._journal), name, manner]
        return {"name": name, "command": command, **treatment}

    def start(self, *stages: list[dict[str, object]]) -> None:
        """Start the supervisor; return when each stand-in has said that it is up."""
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(SUPERVISED), json.dumps(stages)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        names = {str(part["name"]) for stage in stages for part in stage}
        wait_for(lambda: names <= self.pids().keys() or self._running().poll() is not None)

    def pids(self) -> dict[str, int]:
        """Every process that ever said it was up, the last one of each name."""
        lines = [line.split() for line in self.journal()]
        return {name: int(text) for name, text in lines if text.isdigit()}

    def journal(self) -> list[str]:
        return self._journal.read_text().splitlines()

    def output(self) -> str:
        return self._output.read_text()

    def send(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def exit_code(self) -> int:
        """Wait for the supervisor's end."""
        return self._running().wait(PATIENCE_SECONDS)

    def all_ended(self) -> bool:
        return all(has_ended(pid) for pid in self.pids().values())

    def clean_up(self) -> None:
        """Kill whatever a failed test left."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.pids().values():
            if not has_ended(pid):
                os.kill(pid, signal.SIGKILL)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process
