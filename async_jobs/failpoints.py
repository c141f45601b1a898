"""Places where a process can be told to die, stand still, wait or fail: for tests of crashes.

    ASYNC_JOBS_TESTING=on ASYNC_JOBS_FAILPOINTS=scheduler.after_lease=kill async-jobs-scheduler

    kill       SIGKILL: nothing is tidied up
    stop       SIGSTOP: the process stands still until somebody sends SIGCONT
    delay:0.5  so many seconds pass here; other attempts and loops go on
    raise      FailpointReached is raised here; use it where something may fail
    ...@3      only the third time the place is reached

Nothing is armed unless a command arms it, and then a place costs one look at an empty dict.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from dataclasses import dataclass

POINTS = {
    "scheduler.after_lease": "leases are committed, nothing is sent",
    "scheduler.after_send": "messages are sent, nothing is written down about it",
    "scheduler.before_rescue": "a lease has run out",
    "scheduler.after_rescue": "jobs are taken back, nobody has been told",
    "worker.after_receive": "messages are received, no job is started",
    "worker.after_start": "jobs are started, no attempt has begun",
    "worker.before_handler": "an attempt has begun, its handler is not called yet",
    "worker.after_handler": "the handler has ended, its outcome is not recorded",
    "worker.after_record": "the outcome is recorded, nobody has been told",
    "worker.before_delete": "tickets were offered, their messages are still in the queue",
    "heartbeat.before_extend": "leases are about to be renewed",
    "heartbeat.after_extend": "leases are renewed, the worker has not heard of it",
}
_ENTRY = re.compile(r"([a-z_.]+)=(kill|stop|raise|delay:(\d{1,4}(?:\.\d{1,3})?))(?:@(\d{1,9}))?")


class FailpointReached(RuntimeError):
    """A failpoint was told to raise."""


@dataclass(slots=True)
class _Armed:
    """What happens at one place, and how often it has been reached."""

    action: str
    seconds: float
    only_time: int | None
    reached: int = 0

    def happens(self) -> bool:
        self.reached += 1
        return self.only_time in (None, self.reached)


_armed: dict[str, _Armed] = {}


def read(text: str) -> dict[str, _Armed]:
    """What *text* arms, by name; raises ValueError that names the entry by its number."""
    read: dict[str, _Armed] = {}
    for number, entry in enumerate(text.split(","), 1):
        found = _ENTRY.fullmatch(entry.strip())
        if found is None:
            raise ValueError(f"entry {number} is not name=kill, stop, raise or delay:SECONDS")
        name, action, seconds, only_time = found.groups()
        if name not in POINTS:
            raise ValueError(f"entry {number} names no place; places are {', '.join(POINTS)}")
        read[name] = _Armed(
            action.partition(":")[0], float(seconds or 0), int(only_time) if only_time else None
        )
    return read


def arm(text: str | None) -> None:
    """Arm exactly what *text* says, for this process; None for nothing."""
    _armed.clear()
    _armed.update(read(text) if text else {})


async def reach(name: str) -> None:
    """This place is reached; whatever is armed for it happens now."""
    if _armed and (seconds := _act(name)):
        await asyncio.sleep(seconds)


def reach_in_thread(name: str) -> None:
    """The same in a thread, which may wait."""
    if _armed and (seconds := _act(name)):
        time.sleep(seconds)


def _act(name: str) -> float:
    armed = _armed.get(name)
    if armed is None or not armed.happens():
        return 0.0
    match armed.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            raise FailpointReached(f"the failpoint {name} was told to raise")
    return armed.seconds
