"""The data folder of the private PostgreSQL: create, check, read and delete it.

`postgres.py` calls this around the life of the server. It never starts the
postmaster, and it never touches a folder that is not a PostgreSQL data folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path

from async_jobs.embedded.account import Account, EmbeddedServerError
from async_jobs.embedded.binaries import Binaries

_PASSWORD_FILE = "tcp_password"  # noqa: S105 - the name of a file
_READY_LINE = 8
_LOG_LINES_SHOWN = 8


def prepare(data_dir: Path, scratch: Path, account: Account, binaries: Binaries) -> None:
    """Create the data folder if it is missing or empty, refuse one of another major version.

    *scratch* is a folder the account can enter. Raises EmbeddedServerError.
    """
    found = _major_of(data_dir)
    if found is None:
        _create(data_dir, scratch, account, binaries)
    elif found != str(binaries.major):
        raise EmbeddedServerError(
            f"The data folder {data_dir} was written by PostgreSQL {found}; the binaries in "
            f"{binaries.folder} are PostgreSQL {binaries.major} and cannot read it. Start with "
            f"--fresh to begin with an empty database, or install PostgreSQL {found}."
        )


def password(data_dir: Path) -> str | None:
    """The password for TCP, or None in a folder that somebody else created."""
    try:
        return (data_dir / _PASSWORD_FILE).read_text("utf-8")
    except FileNotFoundError:
        return None


def is_ready(data_dir: Path, pid: int) -> bool:
    """True if the postmaster *pid* says that it accepts connections."""
    try:
        lines = (data_dir / "postmaster.pid").read_text("utf-8").splitlines()
    except OSError:
        return False
    return (
        len(lines) >= _READY_LINE
        and lines[0].strip() == str(pid)
        and lines[_READY_LINE - 1].strip() == "ready"
    )


def last_lines(log: Path, start: int) -> str:
    """The last lines that were written to *log* after byte *start*."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LOG_LINES_SHOWN:])


def delete(folder: Path) -> None:
    """Delete a folder if it is there; a folder with other files than PostgreSQL's stays."""
    if (folder / "PG_VERSION").exists():
        shutil.rmtree(folder)


def _major_of(data_dir: Path) -> str | None:
    try:
        return (data_dir / "PG_VERSION").read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise EmbeddedServerError(
            f"The data folder {data_dir} belongs to another user: it was created as root or by "
            "somebody else. Start as that user, or choose another data folder."
        ) from error


def _create(data_dir: Path, scratch: Path, account: Account, binaries: Binaries) -> None:
    """Run initdb beside *data_dir* and rename: a killed initdb leaves no half-made folder."""
    if data_dir.is_dir() and any(data_dir.iterdir()):
        raise EmbeddedServerError(
            f"{data_dir} holds files but is no PostgreSQL data folder. Choose another data "
            "folder, or empty this one."
        )
    new = data_dir.with_name(f"{data_dir.name}.new")
    if new.is_dir():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    account.own(new)
    password_file = _new_password_file(scratch, account)
    try:
        _initdb(new, password_file, account, binaries)
        shutil.copy2(password_file, new / _PASSWORD_FILE)
        account.own(new / _PASSWORD_FILE)
        new.rename(data_dir)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    finally:
        password_file.unlink()


def _initdb(new: Path, password_file: Path, account: Account, binaries: Binaries) -> None:
    # C.UTF-8 is not a locale that every libc outside Linux has.
    locale = "C.UTF-8" if sys.platform == "linux" else "C"
    command = [binaries.path("initdb"), "-D", str(new), "-U", "postgres", "-E", "UTF8"]
    command += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password_file}"]
    # Unsynced: a power cut within the next half minute costs a database that holds nothing yet.
    command += [f"--locale={locale}", "--no-instructions", "--no-sync"]
    answer = account.run(command)
    if answer.returncode != 0:
        raise EmbeddedServerError(
            f"initdb could not create the data folder {new}:\n{answer.stderr.strip()}"
        )


def _new_password_file(scratch: Path, account: Account) -> Path:
    file = scratch / _PASSWORD_FILE
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_urlsafe(12))
    account.own(file)
    return file
