"""What a transport promises: to carry tickets from the scheduler to a worker.

A message is a doorbell, the row is the job. So a transport may lose, delay,
double or reorder what it carries, and nothing goes wrong: a lost ticket's lease
runs out and the job is leased again; a second one finds the door shut.

    Sender     the scheduler's end. Says which jobs were not accepted, so that their leases
               can be released at once instead of running out.
    Receiver   the worker's end. `wait` until the bell has rung, `start` what may be started,
               `hand_back` what will not be.

Both ends are written for PostgreSQL itself (`postgres.py`) and for SQS
(`sqs.py`), and one behaviour suite runs against both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from async_jobs.models import Leased, StartedJob, Ticket


@dataclass(frozen=True, slots=True)
class SendReport:
    """Which jobs a queue did not accept, and why (the first reason it gave)."""

    failed: Sequence[Leased] = ()
    reason: str = ""


class Sender(Protocol):
    """Sends leased jobs on their way."""

    async def send(self, leased: Sequence[Leased], *, pack: int) -> SendReport:
        """Send *leased*, most urgent first, up to *pack* tickets in one message.

        Never raises for what a queue may do; what it cannot know to be accepted is reported as
        failed.
        """

    async def depth(self) -> int:
        """About how many messages wait in the queue, 0 without one. Raises TransportError."""


class Receiver(Protocol):
    """Brings jobs to one worker."""

    async def wait(self, slots: int) -> None:
        """Return when `start` may find something, or after a while; *slots* are free now."""

    async def start(self, slots: int) -> list[StartedJob]:
        """Start up to *slots* jobs and give them; empty if there is nothing to start."""

    async def hand_back(self) -> None:
        """Give up what was received and not started, so that it is leased again at once."""

    async def close(self) -> None:
        """Finish what is under way with the queue."""


class StartDesk(Protocol):
    """The store's moves that a receiver makes."""

    async def start(
        self, tickets: Sequence[Ticket], *, worker: str, lease_seconds: float
    ) -> list[StartedJob]: ...

    async def start_leased(
        self, queues: Sequence[str], *, slots: int, worker: str, lease_seconds: float
    ) -> list[StartedJob]: ...

    async def release(self, tickets: Sequence[Ticket], *, enqueue_failed: bool) -> int: ...
