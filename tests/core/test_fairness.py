"""Which waiting jobs get the free slots: deadlines first, and fair once promises break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.fairness import Credits, Flow, Head, Listed, Terms, choose, free_slots

TENANTS = ("acme", "bolt", "core", "dune")
MEAN_SECONDS = {"acme": 1.0, "bolt": 20.0, "core": 0.5, "dune": 3.0}


@dataclass(frozen=True)
class Waiting:
    """A waiting job as tests write it; negative slack: late."""

    number: int
    tenant: str = "acme"
    slack: float = 10.0
    priority: int = 0
    is_retry: bool = False

    @property
    def flow(self) -> Flow:
        return Flow(self.tenant, "send", self.is_retry, self.priority)


def lanes_of(jobs: Sequence[Waiting], *, cut: bool = False) -> list[Listed[Waiting]]:
    lanes: dict[tuple[Flow, bool], list[Waiting]] = {}
    for job in sorted(jobs, key=lambda job: (job.slack, job.number)):
        lanes.setdefault((job.flow, job.slack < 0), []).append(job)
    return [
        Listed(flow, [(Head(job.slack, job.number), job) for job in inside], late=late, cut=cut)
        for (flow, late), inside in lanes.items()
    ]


def terms_of(
    jobs: Sequence[Waiting],
    held: Mapping[str, int],
    *,
    capacity: int = 12,
    weights: Mapping[str, float] | None = None,
) -> Terms:
    weight_of = (weights or {}).get
    return Terms(
        capacity=capacity,
        now=0.0,
        pressure=any(job.slack < 0 for job in jobs),
        total_weight=sum(weight_of(name, 1.0) for name in {job.tenant for job in jobs} | {*held}),
        weight_of=lambda tenant: weight_of(tenant, 1.0),
        mean_seconds=lambda flow: MEAN_SECONDS[flow.tenant_id],
    )


def picked(
    jobs: Sequence[Waiting],
    *,
    slots: int,
    held: Mapping[str, int] | None = None,
    room: Mapping[str, int] | None = None,
    credits: Credits | None = None,
    weights: Mapping[str, float] | None = None,
    capacity: int = 12,
) -> list[Waiting]:
    return choose(
        lanes_of(jobs),
        terms_of(jobs, held or {}, capacity=capacity, weights=weights),
        slots=slots,
        held=held or {},
        room=room or {},
        credits=credits or Credits(),
    )


@st.composite
def backlogs(draw: st.DrawFn, least_slack: int = -20) -> list[Waiting]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(TENANTS),
                st.integers(least_slack, 40),
                st.integers(-1, 1),
                st.booleans(),
            ),
            max_size=30,
        )
    )
    return [Waiting(number, *job) for number, job in enumerate(drawn)]


slots = st.integers(0, 40)
counts = st.dictionaries(st.sampled_from(TENANTS), st.integers(0, 10))


@given(backlogs(), slots, counts, counts)
def test_no_bound_is_ever_passed_and_no_job_is_chosen_twice(
    jobs: list[Waiting], slots: int, held: dict[str, int], room: dict[str, int]
) -> None:
    chosen = picked(jobs, slots=slots, held=held, room=room)

    assert len(chosen) <= slots
    assert len(set(chosen)) == len(chosen)
    for tenant, got in Counter(job.tenant for job in chosen).items():
        assert got <= room.get(tenant, 10**9)


@given(backlogs(), slots, counts, counts)
def test_no_slot_stays_free_while_somebody_with_room_waits(
    jobs: list[Waiting], slots: int, held: dict[str, int], room: dict[str, int]
) -> None:
    wanted = Counter(job.tenant for job in jobs)
    most = sum(min(count, room.get(tenant, count)) for tenant, count in wanted.items())

    assert len(picked(jobs, slots=slots, held=held, room=room)) == min(slots, most)


@given(backlogs(least_slack=0), slots, counts)
def test_while_nothing_is_late_deadlines_alone_decide(
    jobs: list[Waiting], slots: int, held: dict[str, int]
) -> None:
    chosen = picked(jobs, slots=slots, held=held)

    in_order = sorted(jobs, key=lambda job: (job.slack, -job.priority, job.number))
    assert chosen == in_order[:slots]


@given(backlogs(), slots, counts, st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_the_lanes(
    jobs: list[Waiting], slots: int, held: dict[str, int], random: st.DataObject
) -> None:
    shuffled = lanes_of(jobs)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # st.randoms gives a random.Random

    chosen = choose(
        shuffled, terms_of(jobs, held), slots=slots, held=held, room={}, credits=Credits()
    )

    # Ranks may tie between tenants; what each rank gets is the same.
    assert sorted(map(_worth, chosen)) == sorted(map(_worth, picked(jobs, slots=slots, held=held)))


def _worth(job: Waiting) -> tuple[float, int, bool]:
    return (job.slack, job.priority, job.is_retry)


@given(backlogs(), slots, counts, counts)
def test_the_draw_agrees_with_the_rule_written_out(
    jobs: list[Waiting], slots: int, held: dict[str, int], room: dict[str, int]
) -> None:
    chosen = picked(jobs, slots=slots, held=held, room=room)

    assert chosen == _by_the_rule(jobs, slots, held, room)


def _by_the_rule(
    jobs: Sequence[Waiting], slots: int, held: Mapping[str, int], room: Mapping[str, int]
) -> list[Waiting]:
    """The rule of the decision page, without heaps: look at every job before every pick."""
    left, holds, rooms = list(jobs), Counter(held), dict(room)
    pressure = any(job.slack < 0 for job in jobs)
    active = {job.tenant for job in jobs} | {*held}
    share = 12 / max(1, len(active))
    late_credit = retry_credit = 0.0
    first_seen = {(lane.flow, lane.late): n for n, lane in enumerate(lanes_of(jobs))}
    chosen: list[Waiting] = []
    while len(chosen) < slots:
        open_jobs = [job for job in left if rooms.get(job.tenant, 1) > 0]
        if not open_jobs:
            break
        first_waits = any(not job.is_retry for job in open_jobs)
        if pressure and first_waits and retry_credit < 0.999:
            open_jobs = [job for job in open_jobs if not job.is_retry]
        timely = [job for job in open_jobs if job.slack >= 0]
        late = [job for job in open_jobs if job.slack < 0]
        goes_late = bool(late) and (not timely or late_credit > 0.999)

        def rank(job: Waiting) -> tuple[object, ...]:
            over = max(0.0, (holds[job.tenant] + 1) / share - 1) if pressure else 0.0
            number = first_seen[job.flow, job.slack < 0]
            if not pressure:
                return ((job.slack, -job.priority), job.number, number)
            if job.slack < 0:
                return ((-job.priority, over, job.slack), job.number, number)
            if not over:
                return ((0, -job.priority, job.slack), job.number, number)
            postponed = max(job.slack, over * MEAN_SECONDS[job.tenant])
            return ((1, 0, postponed, -job.priority), job.number, number)

        # Only the first job of each lane competes.
        heads = [
            job
            for job in (late if goes_late else timely)
            if not any(
                other.flow == job.flow and (other.slack, other.number) < (job.slack, job.number)
                for other in (late if goes_late else timely)
            )
        ]
        job = min(heads, key=rank)
        late_credit = late_credit - 1 if goes_late and timely else min(2.0, late_credit + 0.1)
        spent = job.is_retry and first_waits
        retry_credit = retry_credit - 1 if spent else min(2.0, retry_credit + 0.1)
        left.remove(job)
        holds[job.tenant] += 1
        if job.tenant in rooms:
            rooms[job.tenant] -= 1
        chosen.append(job)
    return chosen


def test_late_jobs_get_every_tenth_start_while_others_can_still_keep_their_promise() -> None:
    jobs = [Waiting(n, slack=-5.0) for n in range(50)] + [Waiting(n, "bolt") for n in range(50, 99)]

    chosen = picked(jobs, slots=44, capacity=1_000)

    assert sum(job.slack < 0 for job in chosen) == 4


def test_late_jobs_get_every_slot_that_nobody_else_wants() -> None:
    jobs = [Waiting(n, slack=-5.0) for n in range(50)] + [Waiting(99, "bolt")]

    assert len(picked(jobs, slots=20, capacity=1_000)) == 20


def test_retries_get_every_tenth_start_while_first_attempts_wait_under_pressure() -> None:
    jobs = [Waiting(n, slack=1.0, is_retry=True) for n in range(50)]
    jobs += [Waiting(n, "bolt", slack=30.0) for n in range(50, 99)]
    late = [Waiting(1_000, "core", slack=-1.0)]

    chosen = picked(jobs + late, slots=44, capacity=1_000)

    assert sum(job.is_retry for job in chosen) == 4
    assert sum(job.is_retry for job in picked(jobs, slots=44, capacity=1_000)) == 44


def test_retries_that_go_in_order_leave_no_debt_for_the_next_pressure() -> None:
    credits = Credits()
    picked([Waiting(n, slack=n, is_retry=n < 50) for n in range(99)], slots=60, credits=credits)

    assert credits == Credits()


def test_credit_is_carried_from_pass_to_pass() -> None:
    jobs = [Waiting(n, slack=-5.0) for n in range(50)] + [Waiting(n, "bolt") for n in range(50, 99)]
    credits = Credits()

    passes = [picked(jobs, slots=1, capacity=1_000, credits=credits) for _ in range(44)]

    assert sum(job.slack < 0 for chosen in passes for job in chosen) == 4


def test_a_tenant_above_its_share_waits_behind_those_within_theirs() -> None:
    late = Waiting(1, "dune", slack=-1.0)
    greedy = [Waiting(n, "acme", slack=0.5) for n in range(10, 20)]
    modest = [Waiting(n, "bolt", slack=30.0) for n in range(20, 23)]

    chosen = picked([late, *greedy, *modest], slots=3, held={"acme": 8})

    assert {job.tenant for job in chosen} == {"bolt"}
    assert picked([*greedy, *modest], slots=3, held={"acme": 8}) == greedy[:3]


def test_nobody_is_shut_out_by_being_above_its_share() -> None:
    late = Waiting(1, "dune", slack=-1.0)
    greedy = [Waiting(n, "acme", slack=0.5) for n in range(10, 20)]

    chosen = picked([late, *greedy], slots=4, held={"acme": 12})

    assert Counter(job.tenant for job in chosen)["acme"] >= 3


def test_a_heavier_tenant_has_a_larger_share() -> None:
    late = Waiting(1, "dune", slack=-1.0)
    jobs = [Waiting(n, "acme") for n in range(10, 30)] + [Waiting(n, "bolt") for n in range(30, 50)]

    chosen = picked([late, *jobs], slots=12, capacity=14, weights={"acme": 5.0})

    counted = Counter(job.tenant for job in chosen)
    assert counted["acme"] > 3 * counted["bolt"]


def test_priority_ranks_inside_a_share_and_buys_no_larger_one() -> None:
    late = Waiting(1, "dune", slack=-1.0)
    cheat = [Waiting(n, "acme", slack=1.0, priority=9) for n in range(10, 20)]
    honest = [Waiting(n, "bolt", slack=20.0) for n in range(20, 30)]
    important = [Waiting(n, "bolt", slack=25.0, priority=1) for n in range(30, 32)]

    chosen = picked([late, *cheat, *honest, *important], slots=8, held={"acme": 4})

    assert chosen[:2] == important
    assert not any(job.tenant == "acme" for job in chosen[:4])


def test_among_equal_deadlines_priority_decides_and_then_age() -> None:
    jobs = [Waiting(3), Waiting(2), Waiting(1, priority=-1), Waiting(4, priority=9)]

    assert [job.number for job in picked(jobs, slots=4)] == [4, 2, 3, 1]


def test_a_choice_ends_where_it_cannot_see_the_next_job() -> None:
    jobs = [Waiting(n, slack=1.0) for n in range(3)] + [Waiting(9, "bolt", slack=2.0)]

    chosen = choose(
        lanes_of(jobs, cut=True),
        terms_of(jobs, {}),
        slots=9,
        held={},
        room={},
        credits=Credits(),
    )

    assert [job.number for job in chosen] == [0, 1, 2]


@pytest.mark.parametrize(
    ("capacity", "held", "free"),
    [(10, {}, 10), (10, {"acme": 4, "bolt": 6}, 0), (10, {"acme": 12}, 0), (0, {}, 0)],
)
def test_free_slots_are_what_capacity_leaves_and_never_negative(
    capacity: int, held: dict[str, int], free: int
) -> None:
    assert free_slots(capacity, held) == free
