"""CPU time and memory of trees of processes, read from /proc (Linux)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    cpu_seconds: float
    resident_bytes: int


def cpu_seconds(root: int) -> float:
    """CPU time of a process, its live descendants and all children that were waited for."""
    return sum(one.cpu_seconds for one in _tree(root, _all()))


def cpu_by_role(roots: Iterable[int]) -> dict[str, float]:
    """CPU time of the trees below *roots*, by what each process is."""
    return _sum_by_role(roots, lambda one: one.cpu_seconds)


def resident_by_role(roots: Iterable[int]) -> dict[str, float]:
    """Resident bytes of the trees below *roots*, by what each process is."""
    return _sum_by_role(roots, lambda one: one.resident_bytes)


def wakeups_by_role(roots: Iterable[int]) -> dict[str, float]:
    """How often threads of the trees below *roots* went to sleep and were awakened, by role."""
    return _sum_by_role(roots, lambda one: _wakeups(one.pid))


def resident_bytes(roots: Iterable[int]) -> int:
    """Resident memory of the trees below *roots*; shared pages count more than once."""
    processes = list(_all())
    return sum(one.resident_bytes for root in roots for one in _tree(root, processes))


def machine_busy_seconds() -> float:
    """CPU time that the whole machine has spent on anything."""
    fields = (_PROC / "stat").read_text().splitlines()[0].split()[1:]
    return sum(int(fields[number]) for number in _BUSY_FIELDS) * _TICK_SECONDS


def _sum_by_role(roots: Iterable[int], figure: Callable[[_Process], float]) -> dict[str, float]:
    processes = list(_all())
    sums: dict[str, float] = {}
    for root in roots:
        for one in _tree(root, processes):
            role = _role(one.pid)
            sums[role] = sums.get(role, 0.0) + figure(one)
    return sums


def _wakeups(pid: int) -> int:
    """Voluntary context switches of all its threads that live."""
    woken = 0
    for status in (_PROC / str(pid) / "task").glob("*/status"):
        with suppress(OSError):  # it has ended in the meantime
            found = re.search(
                r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE
            )
            woken += int(found[1]) if found else 0
    return woken


def _role(pid: int) -> str:
    """The module that a Python process runs, else its program: scheduler, worker, contestant."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1].rpartition(".")[2]
    return Path(words[1] or words[0]).stem if len(words) > 1 else words[0]


def _tree(root: int, processes: Iterable[_Process]) -> list[_Process]:
    children: dict[int, list[_Process]] = {}
    found: list[_Process] = []
    for one in processes:
        children.setdefault(one.parent, []).append(one)
        if one.pid == root:
            found.append(one)
    for one in found:
        found.extend(children.get(one.pid, ()))
    return found


def _all() -> Iterable[_Process]:
    page = os.sysconf("SC_PAGE_SIZE")
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue  # it has ended in the meantime
            fields = text.rpartition(")")[2].split()
            ticks = sum(int(field) for field in fields[11:15])
            yield _Process(
                int(folder.name), int(fields[1]), ticks * _TICK_SECONDS, int(fields[21]) * page
            )
