"""Test your handlers without a database: `await run_handler("send_notification", {...})`.

The handler is looked up in the registry and called as a worker would call it,
with its payload validated and a real JobContext. Nothing is stored; what the
handler enqueues is kept on the run. Signals (Retry, Snooze, ...) and errors
become the outcome that a worker would record.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from async_jobs.core.outcome import Outcome, Raised, Returned, decide
from async_jobs.embedded.tcp_proxy import TcpProxy
from async_jobs.models import Enqueued, JobContext, NewJob, StartedJob, new_job_id
from async_jobs.registry import JobRegistry, job_registry

__all__ = ["HandlerRun", "TcpProxy", "make_context", "run_handler"]


@dataclass(slots=True)
class HandlerRun:
    """What one call of a handler did: what it returned, what follows, what it enqueued."""

    outcome: Outcome
    returned: object = None
    raised: BaseException | None = None
    enqueued: list[NewJob] = field(default_factory=list)


async def run_handler(
    type: str,
    payload: Mapping[str, Any],
    *,
    registry: JobRegistry = job_registry,
    tenant_id: str = "test-tenant",
    use_case: str = "test",
    attempt: int = 1,
    max_attempts: int = 3,
) -> HandlerRun:
    """Call the handler of *type* once; raises UnknownType if there is none."""
    job = _started(type, dict(payload), tenant_id, use_case, attempt, max_attempts)
    enqueued: list[NewJob] = []

    async def keep(new: NewJob) -> Enqueued:
        enqueued.append(new)
        return Enqueued(new_job_id())

    handler = registry.handler_for(type)
    try:
        returned = await handler(make_context(job, keep), job.payload)
    except Exception as error:
        outcome = decide(job, Raised(error), random=0.0)
        return HandlerRun(outcome, raised=error, enqueued=enqueued)
    return HandlerRun(decide(job, Returned(returned), random=0.0), returned, enqueued=enqueued)


def make_context(job: StartedJob, enqueuer: Any = None) -> JobContext:
    """The context a handler of *job* would be given."""
    more = {} if enqueuer is None else {"enqueuer": enqueuer}
    return JobContext(
        job_id=job.id,
        tenant_id=job.tenant_id,
        use_case=job.use_case,
        type=job.type,
        queue=job.queue,
        attempt=job.attempts,
        max_attempts=job.max_attempts,
        run_at=job.run_at,
        deadline_at=job.deadline_at,
        lease_seq=job.lease_seq,
        log=logging.LoggerAdapter(logging.getLogger("async_jobs.handler"), {}),
        **more,
    )


def _started(
    type: str,
    payload: dict[str, Any],
    tenant_id: str,
    use_case: str,
    attempt: int,
    max_attempts: int,
) -> StartedJob:
    now = datetime.now(UTC)
    return StartedJob(
        id=new_job_id(),
        lease_seq=attempt,
        tenant_id=tenant_id,
        use_case=use_case,
        type=type,
        queue=use_case,
        payload=payload,
        attempts=attempt,
        max_attempts=max_attempts,
        backoff_policy=None,
        run_at=now,
        deadline_at=now + timedelta(seconds=60),
        started_at=now,
        lease_expires_at=now + timedelta(seconds=300),
    )
