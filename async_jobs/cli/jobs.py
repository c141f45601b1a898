"""`async-jobs list`, `show`, `explain`, `enqueue`, `cancel`, `requeue`: jobs by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from async_jobs.cli.service import AsJson, JobId, operator, run_with_service
from async_jobs.models import JobStatus

if TYPE_CHECKING:
    from async_jobs.core.explain import Explanation
    from async_jobs.models import Job, Page
    from async_jobs.service import JobService

PAYLOAD_HELP = "The payload, a JSON object."


def list_jobs(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    use_case: Annotated[str | None, typer.Option(help="Only of this use case.")] = None,
    status: Annotated[JobStatus | None, typer.Option(help="Only with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 20,
    cursor: Annotated[
        UUID | None, typer.Option(help="Go on where a page ended: its next_cursor.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""

    async def act(service: JobService) -> str:
        page = await service.list(
            tenant_id=tenant, use_case=use_case, status=status, limit=limit, cursor=cursor
        )
        if as_json:
            from async_jobs.schemas import JobListView

            return JobListView.model_validate(page).model_dump_json()
        return "\n".join(listed(page))

    run_with_service(act)


def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job, whole."""

    async def act(service: JobService) -> str:
        job = await service.get(job_id)
        return as_text(job) if as_json else "\n".join(described(job))

    run_with_service(act)


def explain(job_id: JobId, as_json: AsJson = False) -> None:
    """Say why a job is where it is: every cause that holds it back, the decisive one first."""

    async def act(service: JobService) -> str:
        found = await service.explain(job_id)
        return explained_json(found) if as_json else "\n".join(explained(found))

    run_with_service(act)


def enqueue(
    use_case: Annotated[str, typer.Argument(metavar="USE_CASE", help="A configured use case.")],
    type: Annotated[str, typer.Argument(metavar="TYPE", help="The job's type.")],
    payload: Annotated[str, typer.Argument(metavar="PAYLOAD", help=PAYLOAD_HELP)] = "{}",
    tenant: Annotated[str, typer.Option(help="Whose job it is.")] = "default",
    tolerance: Annotated[
        float | None, typer.Option(help="Delay tolerance in seconds; else the use case's.")
    ] = None,
    run_at: Annotated[
        datetime | None, typer.Option(help="When it is to run, in UTC; else now.")
    ] = None,
    dedupe_key: Annotated[
        str | None, typer.Option(help="At most one unfinished job per tenant and key.")
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher goes first at equal deadlines.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Enqueue one job."""
    from datetime import UTC

    from async_jobs.errors import InvalidJob

    async def act(service: JobService) -> str:
        try:
            read: Any = json.loads(payload)
        except ValueError:
            raise InvalidJob("payload", "invalid_json", "is not JSON") from None
        enqueued = await service.enqueue(
            tenant_id=tenant,
            use_case=use_case,
            type=type,
            payload=read,
            run_at=None if run_at is None else run_at.replace(tzinfo=UTC),
            delay_tolerance_seconds=tolerance,
            dedupe_key=dedupe_key,
            priority=priority,
        )
        if as_json:
            from async_jobs.schemas import EnqueueResponse

            return EnqueueResponse.model_validate(enqueued).model_dump_json()
        twin = " (an unfinished job has this dedupe key already)" if enqueued.deduplicated else ""
        return f"{enqueued.job_id}{twin}"

    run_with_service(act)


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a pending job at once; ask a running one to end at its next heartbeat."""

    async def act(service: JobService) -> str:
        job = await service.cancel(job_id, actor=operator())
        return as_text(job) if as_json else told(job)

    run_with_service(act)


def requeue(
    job_id: JobId,
    attempts: Annotated[
        int, typer.Option(min=1, max=1_000, help="How many more attempts it gets.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Put a finished job back, due now."""

    async def act(service: JobService) -> str:
        job = await service.requeue(job_id, more_attempts=attempts, actor=operator())
        return as_text(job) if as_json else told(job)

    run_with_service(act)


def as_text(job: Job) -> str:
    """The same JSON as `GET /jobs/{job_id}` answers."""
    from async_jobs.schemas import JobView

    return JobView.model_validate(job).model_dump_json()


def explained_json(found: Explanation) -> str:
    """The same JSON as `GET /jobs/{job_id}/explain` answers."""
    from async_jobs.schemas import ExplanationView

    return ExplanationView.model_validate(found).model_dump_json()


def explained(found: Explanation) -> list[str]:
    """The state and every cause, a line each."""
    return [f"Job {found.job_id} is {found.state}.", *(f"- {each.text}" for each in found.causes)]


def listed(page: Page) -> list[str]:
    """A line for each job, and where to go on."""
    lines = [line_of(job) for job in page.jobs]
    if page.looked_through:
        lines.append(f"Looked through {page.looked_through:,} jobs; there may be more further on.")
    return [*lines, *([f"next_cursor={page.next_cursor}"] if page.next_cursor else [])]


def line_of(job: Job) -> str:
    """`key=value` for what a list shows."""
    shown = ("id", "status", "tenant_id", "use_case", "type", "attempts")
    return " ".join(
        [
            *(f"{name}={_value(getattr(job, name))}" for name in shown),
            f"deadline_at={_value(job.deadline_at)}",
        ]
    )


def described(job: Job) -> Sequence[str]:
    """Every field that has a value, a line each."""
    from async_jobs.schemas import JobView

    fields = JobView.model_validate(job).model_dump()
    return [f"{name}: {_value(value)}" for name, value in fields.items() if value is not None]


def told(job: Job) -> str:
    """What became of *job*, in a line."""
    if job.status.is_finished:
        return f"Job {job.id} is {job.status}: it will not run."
    if job.cancel_requested_at is not None:
        return f"Job {job.id} runs; its worker ends it at its next heartbeat."
    return f"Job {job.id} waits to run, with {job.max_attempts - job.attempts} attempts."


def _value(value: Any) -> str:
    """One line, whatever is in it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, dict | list):
        return json.dumps(value, default=str)
    text = str(value)
    return text if text.isprintable() else json.dumps(text)
