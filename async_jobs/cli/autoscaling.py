"""`async-jobs autoscaling`: how many workers keep every promise of the next minutes.

The figure that `GET /metrics/autoscaling` answers, read from the database directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from async_jobs.cli.command import run_command
from async_jobs.cli.service import AsJson, run_with_service
from async_jobs.core.scaling import LEAD_SECONDS, WITHIN_SECONDS
from async_jobs.runtime.signals import exit_on_term

if TYPE_CHECKING:
    from async_jobs.core.scaling import Scaling
    from async_jobs.service import JobService

MOST_SECONDS = 86_400


def autoscaling(
    use_case: Annotated[str | None, typer.Argument(help="One use case instead of all.")] = None,
    within: Annotated[
        float, typer.Option(min=1, max=MOST_SECONDS, help="Seconds ahead that count.")
    ] = WITHIN_SECONDS,
    lead: Annotated[
        float, typer.Option(min=0, max=MOST_SECONDS, help="Seconds until a new worker works.")
    ] = LEAD_SECONDS,
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Slots of a worker [env: ASYNC_JOBS_WORKER_CONCURRENCY]."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many workers it takes to keep every promise of the next minutes."""

    async def ask(service: JobService) -> str:
        found = await service.scaling(
            use_case, slots_per_worker=slots, within_seconds=within, lead_seconds=lead
        )
        return as_text(found) if as_json else "\n".join(told(found))

    run_with_service(ask)


def as_text(found: Scaling) -> str:
    """The same JSON as `GET /metrics/autoscaling` answers."""
    from async_jobs.schemas import ScalingView

    return ScalingView.model_validate(found).model_dump_json()


def told(found: Scaling) -> list[str]:
    """All together in the first line, then a line for each use case."""
    lines = [f"workers={found.workers} slots={found.slots} of={found.slots_per_worker}"]
    return lines + [
        f"use_case={each.use_case} workers={each.workers} slots={each.slots} "
        f"wanted={each.wanted_slots}{'+' if each.at_least else ''} "
        f"in_flight={each.in_flight} capacity={each.capacity}"
        for each in found.use_cases
    ]


def main() -> None:
    """For `python -m async_jobs.cli.autoscaling`."""
    exit_on_term()
    run_command(autoscaling)


if __name__ == "__main__":
    main()
