"""The random fault run as a command, from the root of the repository:

python -m tests.faults                                     20,000 jobs, 60 faults: minutes
python -m tests.faults --jobs 1000000 --faults 500         the soak: up to two hours
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).parents[1]
EVERY_SECONDS = 5.0


def main() -> int:
    given = _options().parse_args()
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    print(f"seed {given.seed}", flush=True)  # noqa: T201 # the command's own words
    from .random_run import problems

    summary = _run(given)
    broken = problems(summary)
    text = json.dumps({**summary, "broken": broken}, indent=2, default=str)
    if given.json:
        given.json.write_text(text)
    print(text)  # noqa: T201 # the command's own words
    return 1 if broken else 0


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    options.add_argument("--jobs", type=int, default=20_000)
    options.add_argument("--faults", type=int, default=60)
    options.add_argument("--every-seconds", type=float, default=4.0, help="least, between faults")
    options.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options.add_argument("--json", type=Path, help="also write the summary into this file")
    options.add_argument("--folder", type=Path, help="keep the processes' logs here")
    return options


def _run(given: argparse.Namespace) -> dict[str, Any]:
    from .ground import ground
    from .random_run import Plan, make

    plan = Plan(
        jobs=given.jobs, faults=given.faults, seed=given.seed, every_seconds=given.every_seconds
    )
    with TemporaryDirectory() as made, ground() as servers, _progress() as tell:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        one = make(servers, folder, plan, tell)
        try:
            return asyncio.run(one.go())
        finally:
            for process in one.run.processes:
                if process.is_running:
                    process.send(signal.SIGCONT)
            one.run.close()


class _Lines:
    """A line every few seconds: for logs, and where nobody looks at a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._told_at = 0.0
        self._now: dict[str, str] = {}

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def __call__(self, what: str, done: int, of: int) -> None:
        self._now[what.split()[0]] = f"{what} {done}/{of}"
        now = time.monotonic()
        if now - self._told_at >= EVERY_SECONDS:
            self._told_at = now
            text = f"{now - self._began:6.0f} s  {', '.join(self._now.values())}"
            print(text, flush=True)  # noqa: T201 # the command's own words


class _Bars:
    """Progress bars for a terminal."""

    def __init__(self) -> None:
        from rich.progress import Progress, TaskID

        self._progress = Progress()
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        name = what.split()[0]
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=of)
        self._progress.update(self._bars[name], completed=done, description=what)


def _progress() -> _Lines | _Bars:
    if sys.stdout.isatty():
        try:
            return _Bars()
        except ImportError:
            pass
    return _Lines()


if __name__ == "__main__":
    sys.exit(main())
