"""`async-jobs pause`, `resume`, `scale`, `quota`, `processes`, `stop`, `audit`: steer what runs.

What is set here is kept in the database, holds on every process within seconds, and leaves an
audit line. `--reset` takes it back: then the environment counts again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from async_jobs.cli.service import AsJson, UseCase, operator, run_with_service

if TYPE_CHECKING:
    from async_jobs.service import JobService

Reset = Annotated[bool, typer.Option("--reset", help="As the environment says again.")]


def pause(use_case: UseCase, as_json: AsJson = False) -> None:
    """Lease no more jobs of a use case; what runs goes on."""

    async def act(service: JobService) -> str:
        changed = await service.pause(use_case, actor=operator())
        return _changed(
            changed, as_json, f"{use_case} is paused.", f"{use_case} was paused before."
        )

    run_with_service(act)


def resume(use_case: UseCase, as_json: AsJson = False) -> None:
    """Lease jobs of a use case again."""

    async def act(service: JobService) -> str:
        changed = await service.resume(use_case, actor=operator())
        return _changed(changed, as_json, f"{use_case} goes on.", f"{use_case} was not paused.")

    run_with_service(act)


def scale(
    use_case: UseCase,
    capacity: Annotated[
        int | None, typer.Argument(min=1, max=100_000, help="The most jobs in flight.")
    ] = None,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Set the capacity of a use case."""
    if (capacity is None) != reset:
        raise typer.BadParameter("give a capacity, or --reset")

    async def act(service: JobService) -> str:
        changed = await service.scale(use_case, capacity, actor=operator())
        now = (await service.effective_config()).use_cases[use_case.replace("-", "_")]
        text = f"The capacity of {use_case} is {now.max_concurrent}."
        return _changed(changed, as_json, text, text)

    run_with_service(act)


def quota(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose quota.")],
    weight: Annotated[float | None, typer.Option(help="Share under pressure.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Jobs in flight.")] = None,
    max_pending: Annotated[int | None, typer.Option(help="Unfinished jobs.")] = None,
    rate: Annotated[float | None, typer.Option(help="Jobs leased in a second.")] = None,
    burst: Annotated[int | None, typer.Option(help="Jobs leased at once under a rate.")] = None,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Set what a tenant may have, all use cases together."""
    given: dict[str, float | None] = {
        "weight": weight,
        "max_concurrent_jobs": max_concurrent,
        "max_pending_jobs": max_pending,
        "rate_per_second": rate,
        "burst": burst,
    }
    settings = {name: value for name, value in given.items() if reset or value is not None}
    if not settings or (reset and any(value is not None for value in given.values())):
        raise typer.BadParameter("give one or more of the settings, or --reset")

    async def act(service: JobService) -> str:
        changed = await service.set_quota(tenant, actor=operator(), **settings)
        found = (await service.effective_config()).quota_for(tenant)
        if as_json:
            return json.dumps({"changed": changed, "tenant_id": tenant, "quota": asdict(found)})
        return " ".join([f"tenant={tenant}", *(f"{k}={v}" for k, v in asdict(found).items())])

    run_with_service(act)


def processes(as_json: AsJson = False) -> None:
    """List schedulers and workers that were seen within a day."""

    async def act(service: JobService) -> str:
        return _listed([asdict(each) for each in await service.processes()], as_json)

    run_with_service(act)


def stop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, as `processes` tells it.")],
    as_json: AsJson = False,
) -> None:
    """Ask a scheduler or worker to stop as SIGTERM does, within twenty seconds."""

    async def act(service: JobService) -> str:
        asked = await service.stop_process(name, actor=operator())
        return _changed(
            asked, as_json, f"{name} was asked to stop.", f"No {name}, or asked before."
        )

    run_with_service(act)


def audit(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many lines.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Say who did what, newest first."""

    async def act(service: JobService) -> str:
        return _listed([asdict(each) for each in await service.audit(limit=limit)], as_json)

    run_with_service(act)


def _changed(changed: bool, as_json: bool, done: str, not_done: str) -> str:
    if as_json:
        return json.dumps({"changed": changed})
    return done if changed else not_done


def _listed(rows: Sequence[dict[str, Any]], as_json: bool) -> str:
    if as_json:
        return json.dumps(rows, default=str)
    return "\n".join(
        " ".join(
            f"{name}={_plain(value)}" for name, value in row.items() if value not in (None, "")
        )
        for row in rows
    )


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
