"""Tie the lives of child processes to ours, so that kill -9 leaves nothing behind.

    kernel     on Linux a child asks, between fork and exec, to be signalled when its parent
               dies. The kernel means the parent *thread*: only the main thread may use it
    watchdog   a second child that reads a pipe: which processes to watch, then, when our end
               closes, it signals them, and kills those that are deaf. Works everywhere

The embedded PostgreSQL and the supervisor of `async-jobs dev` use this. It
never waits for a child and never restarts one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_DISMISS_SECONDS = 10.0
# argv: the polite signal, the seconds until SIGKILL (0: never). Each line of the input is a
# process id to watch, or, negative, to forget.
_WATCH = """
import os, signal, sys, time
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
watched = set()
def send(call, pid, number):
    try:
        call(pid, number)
    except OSError:
        watched.discard(pid)
for line in sys.stdin:
    pid = int(line)
    watched.add(pid) if pid > 0 else watched.discard(-pid)
for pid in list(watched):
    send(os.kill, pid, int(sys.argv[1]))
deadline = time.monotonic() + float(sys.argv[2])
while watched and time.monotonic() < deadline:
    time.sleep(0.02)
    for pid in list(watched):
        send(os.killpg, pid, 0)
if float(sys.argv[2]):
    for pid in list(watched):
        send(os.killpg, pid, signal.SIGKILL)
"""


def kernel_can_watch() -> bool:
    """True if the kernel will signal a child started now when we die."""
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread()


def signal_on_our_death(signal_number: int) -> Callable[[], None]:
    """A `preexec_fn` with which the kernel sends *signal_number* to the child when we die.

    Only where `kernel_can_watch()`. A change of user clears the request;
    `Popen(user=...)` changes the user before it calls a `preexec_fn`.
    """
    # Looked up before the fork: between fork and exec nothing may be imported.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


class Watchdog:
    """A child of ours that ends the processes it watches as soon as we are gone.

    Each gets *signal_number*; with *kill_after_seconds* whatever is then left of
    its process group (which it must lead) is killed.
    """

    def __init__(self, signal_number: int, *, kill_after_seconds: float = 0.0) -> None:
        manner = [str(int(signal_number)), str(kill_after_seconds)]
        # The arguments are ours: this interpreter, a constant and two numbers.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", _WATCH, *manner],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        """Watch process *pid* from now on."""
        self._tell(pid)

    def forget(self, pid: int) -> None:
        """Watch *pid* no longer. Call it when the process has been reaped: ids are used again."""
        self._tell(-pid)

    def dismiss(self) -> None:
        """End the watch; call it when every watched process has been forgotten."""
        self._process.communicate(timeout=_DISMISS_SECONDS)

    def _tell(self, number: int) -> None:
        pipe = self._process.stdin
        # A watchdog that was killed takes nothing more; the kernel's way may still work.
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.write(f"{number}\n".encode())
                pipe.flush()
