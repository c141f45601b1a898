"""A simulation keeps to the capacity and the bounds, runs everything, and repeats itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.simulation import engine
from async_jobs.simulation.arrivals import Workload
from async_jobs.simulation.backlog import Waiting
from async_jobs.simulation.engine import TooLate, simulate
from async_jobs.simulation.need import least_capacity
from async_jobs.simulation.policies import Lateness, Policy, Setup
from async_jobs.simulation.tally import Figures, Tally

from .made import TENANTS, crowded_workloads, job, workload

setups = st.builds(
    Setup,
    capacity=st.integers(1, 6),
    policy=st.sampled_from(Policy),
    weights=st.dictionaries(st.sampled_from((*TENANTS, "*")), st.sampled_from((0.5, 1.0, 3.0))),
    max_concurrent=st.dictionaries(st.sampled_from((*TENANTS, "*")), st.integers(1, 3)),
    late=st.sampled_from(Lateness),
    backoff_seconds=st.sampled_from((0.0, 3.0)),
)


@dataclass(frozen=True)
class Start:
    """An attempt that started."""

    at: float
    tenant: str
    run_seconds: float
    attempt: int
    job: int


@dataclass
class Watched:
    """Every start of a simulation, and its figures."""

    figures: Figures
    starts: list[Start] = field(default_factory=list)
    drops: int = 0

    def most_at_once(self, *tenants: str) -> int:
        steps: Counter[float] = Counter()
        for start in self.starts:
            if not tenants or start.tenant in tenants:
                steps[start.at] += 1
                steps[start.at + start.run_seconds] -= 1
        running = most = 0
        for _, step in sorted(steps.items()):
            running += step
            most = max(most, running)
        return most


def watched(jobs: Workload, setup: Setup) -> Watched:
    starts: list[Start] = []
    drops: list[Waiting] = []

    class Watching(Tally):
        def start(self, job: Waiting, now: float, *, running: int) -> None:
            arrival = job.arrival
            starts.append(
                Start(now, arrival.tenant_id, arrival.run_seconds, job.attempt, id(arrival))
            )
            super().start(job, now, running=running)

        def drop(self, job: Waiting, now: float) -> None:
            drops.append(job)
            super().drop(job, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Tally", Watching)
        return Watched(simulate(jobs, setup), starts, len(drops))


@given(crowded_workloads(), setups)
def test_no_bound_is_ever_passed(jobs: Workload, setup: Setup) -> None:
    seen = watched(jobs, setup)

    assert seen.most_at_once() <= seen.figures.slots_peak <= setup.capacity
    for tenant in TENANTS:
        assert seen.most_at_once(tenant) <= setup.most_held(tenant)


@given(crowded_workloads(), setups)
def test_every_attempt_runs_or_is_dropped_late(jobs: Workload, setup: Setup) -> None:
    seen = watched(jobs, setup)
    started = Counter((start.job, start.attempt) for start in seen.starts)
    attempts = sum(each.attempts for each in jobs.arrivals)

    assert set(started.values()) <= {1}
    assert seen.figures.jobs == len(jobs.arrivals)
    if setup.late is Lateness.RUN:
        assert len(seen.starts) == attempts
        assert seen.drops == 0
    else:
        assert len(seen.starts) + seen.drops <= attempts
        assert seen.figures.late <= seen.drops


@given(crowded_workloads(), setups)
def test_the_same_jobs_give_the_same_figures(jobs: Workload, setup: Setup) -> None:
    assert simulate(jobs, setup) == simulate(jobs, setup)


@given(crowded_workloads(), st.sampled_from(Policy))
def test_slots_for_all_make_nothing_late(jobs: Workload, policy: Policy) -> None:
    setup = Setup(capacity=len(jobs.arrivals) * 3, policy=policy)

    assert simulate(jobs, setup).late == 0


def test_a_slot_is_filled_at_the_moment_it_frees() -> None:
    jobs = workload(*[job(runs=0.1, tolerates=9) for _ in range(1_000)])
    seen = watched(jobs, Setup(capacity=10))

    assert max(start.at for start in seen.starts) == pytest.approx(9.9)
    assert seen.figures.utilisation == pytest.approx(1.0)


def test_deadlines_come_before_arrival_and_priority_while_all_can_be_kept() -> None:
    jobs = workload(
        job(tolerates=0),
        job(tolerates=60, priority=2),
        job(tolerates=30),
        job(tolerates=10, tenant_id="bolt"),
    )

    seen = watched(jobs, Setup(capacity=1))

    assert [start.tenant for start in seen.starts] == ["acme", "bolt", "acme", "acme"]
    assert seen.figures.late == 0


def test_the_late_wait_for_every_tenth_start_while_others_can_still_be_in_time() -> None:
    late = [job(tolerates=0.5, tenant_id="bolt") for _ in range(10)]
    patient = [job(tolerates=1_000) for _ in range(40)]

    seen = watched(workload(*late, *patient), Setup(capacity=1))

    turns = [number for number, start in enumerate(seen.starts[:30]) if start.tenant == "bolt"]
    assert turns == [0, 11, 22]


def test_a_failed_attempt_waits_and_gets_a_deadline_of_its_own() -> None:
    jobs = workload(job(runs=2.0, tolerates=1.0, fails=1))

    seen = watched(jobs, Setup(capacity=1, backoff_seconds=5.0))

    assert [(start.at, start.attempt) for start in seen.starts] == [(0.0, 1), (7.0, 2)]
    assert (seen.figures.retries, seen.figures.retries_late_share) == (1, 0.0)


def test_a_job_that_always_fails_is_given_up_after_its_last_attempt() -> None:
    seen = watched(workload(job(fails=9, most=4)), Setup(capacity=1))

    assert [start.attempt for start in seen.starts] == [1, 2, 3, 4]


@pytest.mark.parametrize("policy", Policy)
def test_dropped_jobs_take_no_slot_and_count_as_late(policy: Policy) -> None:
    jobs = workload(job(runs=10.0, priority=1), *[job(tolerates=5.0) for _ in range(3)])

    figures = simulate(jobs, Setup(capacity=1, policy=policy, late=Lateness.DROP))

    assert (figures.dropped, figures.late, figures.jobs) == (3, 3, 4)
    assert figures.utilisation == pytest.approx(1.0)


def test_a_larger_weight_gets_a_larger_share_under_pressure() -> None:
    def starts_of_bolt(weights: dict[str, float]) -> int:
        arrivals = [job(tenant_id=name, tolerates=5.0) for name in ("acme", "bolt") * 200]
        starts = watched(workload(*arrivals), Setup(capacity=8, weights=weights)).starts
        return sum(start.tenant == "bolt" and 6 < start.at < 26 for start in starts)

    assert starts_of_bolt({"bolt": 3.0}) > 1.3 * starts_of_bolt({})


def test_a_bounded_tenant_leaves_its_slots_to_others() -> None:
    hog = [job(runs=60.0, tolerates=1.0) for _ in range(40)]
    others = [job(run_at=at, tenant_id="bolt", tolerates=1.0) for at in range(1, 60)]
    jobs = workload(*hog, *others, noisy="acme")

    unbounded = simulate(jobs, Setup(capacity=10))
    bounded = simulate(jobs, Setup(capacity=10, max_concurrent={"acme": 8}))

    assert unbounded.quiet_late_share is not None
    assert unbounded.quiet_late_share > 0.9
    assert bounded.quiet_late_share == 0.0


def test_a_simulation_ends_early_when_more_are_late_than_matter() -> None:
    jobs = workload(*[job() for _ in range(10)])

    assert simulate(jobs, Setup(capacity=1), most_late=9).late == 9
    with pytest.raises(TooLate):
        simulate(jobs, Setup(capacity=1), most_late=8)


@pytest.mark.parametrize("policy", [Policy.RECOMMENDED, Policy.FIFO])
@pytest.mark.parametrize(("share", "needed"), [(0.0, 10), (0.3, 7), (1.0, 1)])
def test_the_least_capacity_is_found(policy: Policy, share: float, needed: int) -> None:
    jobs = workload(*[job() for _ in range(10)])
    setup = Setup(capacity=1, policy=policy)

    assert least_capacity(jobs, setup, late_share=share) == needed


def test_progress_is_told_while_jobs_arrive() -> None:
    told: list[int] = []
    simulate(workload(*[job() for _ in range(25_000)]), Setup(capacity=9), progress=told.append)

    assert told == [10_000, 20_000]


def test_a_run_far_longer_than_its_arrivals_keeps_its_picture_small() -> None:
    figures = simulate(workload(job(runs=1e6), job(runs=5.0)), Setup(capacity=1))

    assert len(figures.bins) <= 240
    assert sum(each.busy_seconds for each in figures.bins) == pytest.approx(1_000_005.0)
    assert sum(each.starts for each in figures.bins) == 2
