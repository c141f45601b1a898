"""What a walk believes about a job: the small model beside the real table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

TOLERANCE_SECONDS = 60.0


@dataclass
class Model:
    """What we believe about one job."""

    run_at: datetime
    max_attempts: int
    dedupe_key: str | None
    status: str = "pending"
    due: bool = True
    attempts: int = 0
    lease_seq: int = 0
    expires_at: datetime | None = None
    asked: bool = False

    @property
    def finished(self) -> bool:
        return self.status not in ("pending", "running")

    @property
    def deadline_at(self) -> datetime:
        return self.run_at + timedelta(seconds=TOLERANCE_SECONDS)

    def end(self, status: str) -> None:
        self.status, self.due, self.expires_at = status, False, None

    def wait(self, run_at: datetime, *, due: bool) -> None:
        self.status, self.due, self.expires_at, self.run_at = "pending", due, None, run_at
