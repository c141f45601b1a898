"""The private folder of one running server: its socket, and the data of a temporary server.

The folder lies in the temporary folder, because a socket's path has at most about
100 bytes. While its owner lives it holds a lock in it; a folder whose lock is
free was left by a process that was killed, and the next owner removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Self

from async_jobs.embedded.account import Account, temporary_folder

_PREFIX = "async-jobs-run-"
_LOCK_FILE = "owner.lock"
# A folder this young may belong to a process that is just about to lock it.
_YOUNG_SECONDS = 60.0


class RunFolder:
    """A new folder that only *account* and we can enter; `remove()` it at the end."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, account: Account) -> Self:
        """Remove what killed owners left, then make a folder and lock it."""
        _sweep(account)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=temporary_folder()))
        account.own(path)
        lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(path, lock)

    def remove(self) -> None:
        """Delete the folder and all it holds."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(account: Account) -> None:
    for entry in temporary_folder().glob(f"{_PREFIX}*"):
        if _is_ours_and_old(entry, account) and _is_abandoned(entry):
            shutil.rmtree(entry, ignore_errors=True)


def _is_ours_and_old(entry: Path, account: Account) -> bool:
    try:
        found = entry.lstat()
    except OSError:
        return False
    age_seconds = time.time() - found.st_mtime
    return found.st_uid == account.uid and age_seconds > _YOUNG_SECONDS and not entry.is_symlink()


def _is_abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(lock)
