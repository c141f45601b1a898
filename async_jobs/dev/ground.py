"""What the stack stands on: ports, the data folder, the handlers, the checkout with the examples.

`stack.py` asks here before it starts anything, so that what cannot work is told at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

import async_jobs
from async_jobs.errors import AsyncJobsError, ConfigError

USUAL_PORT = 8000
_POLL_SECONDS = 0.02
_PACKAGES_OF_THE_DEMO = ("aiosmtpd", "vaderSentiment", "rich")


def free_port() -> int:
    """A TCP port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def api_port(asked: int | None) -> int:
    """The port that was asked for, else the usual one, else a free one.

    Raises AsyncJobsError when the port that was asked for is taken.
    """
    if not _is_taken(asked or USUAL_PORT):
        return asked or USUAL_PORT
    if asked:
        raise AsyncJobsError(
            f"Port {asked} is taken. Give another with --port, or none for a free one."
        )
    return free_port()


async def until_it_accepts(port: int) -> None:
    """Return when something accepts connections on *port*. Waits for ever: put a limit on it."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            return


@contextmanager
def data_folder(path: Path) -> Iterator[None]:
    """Make the folder and hold it; raises AsyncJobsError when another process holds it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / ".gitignore").write_text("*\n", "utf-8")
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _hold(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _hold(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AsyncJobsError(
            f"Another async-jobs dev uses {path}. Stop it first, or give another folder with "
            "--data-dir."
        ) from error


def source_checkout() -> Path:
    """The folder that holds `examples/`; raises AsyncJobsError when the demo cannot run."""
    root = Path(async_jobs.__file__).parents[1]
    if not (root / "examples" / "demo.py").is_file():
        raise AsyncJobsError(
            "--demo runs the example application, which ships with the source checkout and not "
            'with the package. Clone the repository and install it: pip install -e ".[dev]"'
        )
    missing = [name for name in _PACKAGES_OF_THE_DEMO if find_spec(name) is None]
    if missing:
        raise AsyncJobsError(f'--demo needs {", ".join(missing)} as well: pip install -e ".[dev]"')
    return root


def find_package(module: str, current: Path) -> ModuleSpec | None:
    """Where a process started in *current* would find the package of *module*; imports nothing."""
    return PathFinder.find_spec(module.partition(".")[0], [str(current), *sys.path])


def check_handlers(module: str, current: Path) -> None:
    """Raise ConfigError if there is no such package; faults inside it are the worker's to tell."""
    if find_package(module, current) is None:
        raise ConfigError(
            [
                f"--handlers: no module {module!r} is found in {current} or among the installed "
                "packages; run the command in your project's folder, or correct the name"
            ]
        )


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
