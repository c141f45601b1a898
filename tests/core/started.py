"""An attempt that runs, and an error that it may raise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from async_jobs.core.outcome import Raised
from async_jobs.models import StartedJob

NOW = datetime(2030, 1, 1, tzinfo=UTC)
JOB = StartedJob(
    id=UUID(int=1),
    lease_seq=1,
    tenant_id="acme",
    use_case="mail",
    type="send",
    queue="mail",
    payload={},
    attempts=1,
    max_attempts=3,
    backoff_policy={"type": "constant", "base_delay_seconds": 40, "jitter": 0},
    run_at=NOW,
    deadline_at=NOW + timedelta(seconds=60),
    started_at=NOW,
    lease_expires_at=NOW + timedelta(seconds=30),
)
BOOM = Raised(ValueError("boom"))
