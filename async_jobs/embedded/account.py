"""Which user PostgreSQL runs as, and which folders that user can reach.

PostgreSQL refuses to run as root. When we are root it runs as `postgres` if
that user exists, else as `nobody`; a data folder that already belongs to
somebody stays with them. Nobody's permissions on existing folders are ever
changed: what the user cannot reach (a checkout below a home with mode 0700)
gets a place under `/var/lib/async-jobs` or the temporary folder instead, keyed
by the path that was asked for.

The embedded PostgreSQL calls this. It starts no server.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from async_jobs.errors import AsyncJobsError

SHARED_PLACE = Path("/var/lib/async-jobs")
_TIMEOUT_SECONDS = 60.0


class EmbeddedServerError(AsyncJobsError):
    """The embedded server cannot be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user to run as; `other` is False when it is simply us."""

    name: str
    uid: int
    gid: int
    other: bool

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run *command* as this user with a bare environment; never raises on its exit status."""
        # Commands come from this package: paths of binaries we found and fixed options.
        return subprocess.run(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=bare_environment(),
            timeout=_TIMEOUT_SECONDS,
            start_new_session=True,  # Ctrl-C must not cut it off half-way
            user=self.uid if self.other else None,
            group=self.gid if self.other else None,
            extra_groups=[] if self.other else None,
        )

    def can_run(self, command: Sequence[str]) -> bool:
        """True if *command* can be executed and succeeds."""
        try:
            return self.run(command).returncode == 0
        except OSError:
            return False

    def can_enter(self, folder: Path) -> bool:
        """True if this user can traverse to *folder* (asked of the kernel, not of mode bits)."""
        if not self.other:
            return folder.is_dir()
        return self.can_run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)])

    def own(self, path: Path) -> None:
        """Give one file or folder, not what it holds, to this user."""
        if self.other:
            os.chown(path, self.uid, self.gid)


def bare_environment() -> dict[str, str]:
    """PATH and the library path only: no PG* variable, no secret, messages in English."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C"}


def server_account(data_dir: Path | None) -> Account:
    """The user PostgreSQL runs as for this data folder; None stands for a folder to be made."""
    if os.geteuid() != 0:
        return Account(name=str(os.geteuid()), uid=os.geteuid(), gid=os.getegid(), other=False)
    owner = _owner(data_dir / "PG_VERSION") if data_dir else None
    entry = owner or _named("postgres") or _named("nobody")
    if entry is None:
        raise EmbeddedServerError(
            "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run "
            "it as. Create one of them, or start as another user, or pass --database-url."
        )
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, other=True)


def _owner(file: Path) -> pwd.struct_passwd | None:
    try:
        uid = file.stat().st_uid
        return pwd.getpwuid(uid) if uid != 0 else None
    except (OSError, KeyError):
        return None


def _named(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def reachable_data_dir(asked: Path, account: Account) -> Path:
    """The folder to keep the data in: *asked*, or its stand-in where *account* cannot reach it.

    The parents of the folder exist afterwards, the folder itself need not.
    Raises EmbeddedServerError when there is data in *asked* which the user cannot
    reach: a stand-in would hide it.
    """
    candidates = [asked, *stand_ins(asked)] if account.other else [asked]
    for candidate in candidates:
        if _make_parent(candidate) and account.can_enter(candidate.parent):
            return candidate
        if (candidate / "PG_VERSION").exists():
            raise EmbeddedServerError(
                f"The data folder {candidate} cannot be reached by the user {account.name}, as "
                "which PostgreSQL runs. Move it to a place which that user can reach, or start "
                "with --fresh to begin with an empty database."
            )
    raise EmbeddedServerError(
        f"The user {account.name}, as which PostgreSQL runs, cannot have a data folder at "
        f"{asked}. Choose a place which that user can reach and we can write, or pass "
        "--database-url to use a running server."
    )


def stand_ins(asked: Path) -> list[Path]:
    """Where the data goes when *asked* cannot be reached, in order of preference."""
    digest = hashlib.sha256(os.fsencode(asked)).hexdigest()[:12]
    name = f"{asked.name}-{digest}"
    return [SHARED_PLACE / name, _temporary_place() / name]


def open_place(folder: Path) -> bool:
    """Create *folder* for everybody to enter, whatever our umask; False if it is not ours."""
    try:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    except FileExistsError:
        # A guessable name in a shared place may have been planted by somebody else.
        return not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
    except OSError:
        return False
    return True


def _temporary_place() -> Path:
    return temporary_folder() / f"async-jobs-{os.geteuid()}"


def _make_parent(data_dir: Path) -> bool:
    parent = data_dir.parent
    if parent in (SHARED_PLACE, _temporary_place()):
        return open_place(parent)
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def temporary_folder() -> Path:
    """A short path: a socket's has at most about 100 bytes, and TMPDIR may be closed to others."""
    short = Path("/tmp")  # noqa: S108 - only with mkdtemp or after a check of the owner
    return short if os.access(short, os.W_OK) else Path(tempfile.gettempdir())
