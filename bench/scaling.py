"""`python -m bench scaling`: autoscaling by deadlines and by depth, simulated on a burst.

Needs no server; the same seed gives the same table on every machine.
"""

from __future__ import annotations

from rich.console import Console

from async_jobs.simulation.scaling import burst, compare
from bench.table import Table, show


def run(seed: int) -> int:
    """Simulate and print."""
    show(table(seed=seed), Console())
    return 0


def table(*, seed: int = 1, scale: float = 1.0, seconds: float = 10_800.0) -> Table:
    """What each rule came to."""
    workload = burst(seed=seed, scale=scale, seconds=seconds)
    rows = [
        [
            each.rule,
            f"{each.late:,}",
            f"{each.late_share:.2%}",
            f"{each.worst_seconds:.0f}",
            f"{each.worker_hours:.1f}",
            str(each.most_workers),
        ]
        for each in compare(workload)
    ]
    title = f"Autoscaling, {len(workload.arrivals):,} jobs"
    return Table(title, ["rule", "late", "share", "worst s", "worker-hours", "most workers"], rows)
