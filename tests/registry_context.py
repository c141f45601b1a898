"""A context as a worker gives it to handlers, for the tests of the registry."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from async_jobs.models import JobContext, new_job_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXT = JobContext(
    job_id=new_job_id(),
    tenant_id="tenant1",
    use_case="notifications",
    type="mail",
    queue="notifications",
    attempt=1,
    max_attempts=3,
    run_at=NOW,
    deadline_at=NOW,
    lease_seq=1,
    log=logging.LoggerAdapter(logging.getLogger("test"), {}),
)
