"""Small workloads for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from async_jobs.simulation.arrivals import Arrival, Workload

TENANTS = ("acme", "bolt", "core", "dune")


def job(
    run_at: float = 0.0,
    tenant_id: str = "acme",
    *,
    runs: float = 1.0,
    tolerates: float = 0.0,
    priority: int = 0,
    fails: int = 0,
    most: int = 3,
) -> Arrival:
    return Arrival(run_at, tenant_id, "send", runs, tolerates, priority, fails, most)


def workload(*arrivals: Arrival, capacity: int = 1, noisy: str | None = None) -> Workload:
    return Workload(
        name="made",
        arrivals=sorted(arrivals),
        capacity=capacity,
        noisy=frozenset({noisy} if noisy else ()),
    )


@st.composite
def crowded_workloads(draw: st.DrawFn) -> Workload:
    """More than fits, in steps that make many deadlines and finishes fall together."""
    halves = st.integers(0, 60).map(lambda number: number / 2)
    jobs = st.builds(
        Arrival,
        run_at=halves,
        tenant_id=st.sampled_from(TENANTS),
        type=st.sampled_from(("send", "import")),
        run_seconds=st.integers(1, 12).map(lambda number: number / 2),
        delay_tolerance_seconds=st.sampled_from((0.0, 2.0, 10.0, 40.0)),
        priority=st.integers(0, 2),
        failing_attempts=st.sampled_from((0, 0, 0, 1, 5)),
        max_attempts=st.integers(1, 4),
    )
    return workload(*draw(st.lists(jobs, min_size=1, max_size=60)))
