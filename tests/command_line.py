"""Runs the commands as an operator does, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moving_parts import environment

ROOT = Path(__file__).parents[1]
FLOWS = ROOT / "tests" / "flows"
UNREACHABLE = "postgresql://ada:sesame@127.0.0.1:1/nowhere"
LONGEST_SECONDS = 180.0
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    said: str

    @property
    def lines(self) -> list[str]:
        return self.said.splitlines()


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which the library and the handlers of the flows can be imported."""
    return environment(PYTHONPATH=f"{ROOT}:{FLOWS}", **env)


def run(
    role: str, *words: str, env: Mapping[str, str] = NOTHING, patience_seconds: float = 0.2
) -> Ended:
    """Run `async-jobs-<role>` to its end; it waits *patience_seconds* for a database."""
    program = (
        f"from async_jobs.cli import process; process.START_TIMEOUT_SECONDS = {patience_seconds}; "
        f"from async_jobs.cli import {role}; {role}.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        env=variables(env),
        timeout=LONGEST_SECONDS,
    )
    return Ended(done.returncode, done.stdout + done.stderr)


def start(
    role: str, *words: str, env: Mapping[str, str], before: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start `python -m async_jobs.cli.<role>`; *before* is what starts it in turn."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", f"async_jobs.cli.{role}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=variables(env),
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What *process* says up to the line with *words*; fails if it ends before."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"ended without {words!r}:\n{said}")


def rest(process: subprocess.Popen[str]) -> Ended:
    """How *process* ends, and what it says until then; kills it if it does not."""
    try:
        said, _ = process.communicate(timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, said)
