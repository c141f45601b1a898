"""Which waiting jobs get the free slots: earliest deadline first, inside every bound."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_jobs.core.fairness import Candidate, choose, free_slots

MIDNIGHT = datetime(2030, 1, 1, tzinfo=UTC)
TENANTS = ("acme", "bolt", "core", "dune")


def candidate(
    number: int, tenant: str = "acme", *, due_in: float = 0.0, priority: int = 0
) -> Candidate:
    return Candidate(
        job_id=UUID(int=number),
        tenant_id=tenant,
        deadline_at=MIDNIGHT + timedelta(seconds=due_in),
        priority=priority,
    )


@st.composite
def backlogs(draw: st.DrawFn) -> list[Candidate]:
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from(TENANTS), st.integers(0, 3), st.integers(-1, 1)), max_size=30
        )
    )
    return [
        candidate(number, tenant, due_in=due_in, priority=priority)
        for number, (tenant, due_in, priority) in enumerate(drawn)
    ]


slots = st.integers(0, 40)
counts = st.dictionaries(st.sampled_from(TENANTS), st.integers(0, 10))


@given(backlogs(), slots, counts, counts)
def test_no_bound_is_ever_passed(
    backlog: list[Candidate], slots: int, held: dict[str, int], most_for: dict[str, int]
) -> None:
    tenant_of = {one.job_id: one.tenant_id for one in backlog}

    chosen = choose(backlog, slots=slots, held=held, most_for=most_for)

    assert len(chosen) <= slots
    assert len(set(chosen)) == len(chosen)
    for tenant, given_slots in Counter(tenant_of[job_id] for job_id in chosen).items():
        assert given_slots + held.get(tenant, 0) <= most_for.get(tenant, 10**9)


@given(backlogs(), slots, counts, counts)
def test_no_job_is_passed_over_for_a_less_urgent_one_while_its_tenant_has_room(
    backlog: list[Candidate], slots: int, held: dict[str, int], most_for: dict[str, int]
) -> None:
    by_id = {one.job_id: one for one in backlog}

    chosen = choose(backlog, slots=slots, held=held, most_for=most_for)

    holds = Counter(held)
    holds.update(by_id[job_id].tenant_id for job_id in chosen)
    left = [one for one in backlog if one.job_id not in set(chosen)]
    with_room = [
        one
        for one in left
        if one.tenant_id not in most_for or holds[one.tenant_id] < most_for[one.tenant_id]
    ]
    if len(chosen) < slots:
        assert not with_room
    for one in with_room:
        assert all(by_id[job_id].urgency < one.urgency for job_id in chosen)


@given(backlogs(), slots, counts, counts)
def test_the_chosen_come_most_urgent_first(
    backlog: list[Candidate], slots: int, held: dict[str, int], most_for: dict[str, int]
) -> None:
    by_id = {one.job_id: one for one in backlog}

    chosen = choose(backlog, slots=slots, held=held, most_for=most_for)

    assert chosen == sorted(chosen, key=lambda job_id: by_id[job_id].urgency)


@given(backlogs(), slots, st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_the_candidates(
    backlog: list[Candidate], slots: int, random: st.DataObject
) -> None:
    shuffled = list(backlog)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # st.randoms gives a random.Random

    assert choose(backlog, slots=slots, held={}, most_for={}) == choose(
        shuffled, slots=slots, held={}, most_for={}
    )


def test_among_equal_deadlines_priority_decides_and_then_age() -> None:
    backlog = [candidate(3), candidate(2), candidate(1, priority=-1), candidate(4, priority=9)]

    chosen = choose(backlog, slots=4, held={}, most_for={})

    assert [job_id.int for job_id in chosen] == [4, 2, 3, 1]


def test_a_tenant_at_its_bound_makes_room_for_the_others() -> None:
    backlog = [candidate(1), candidate(2), candidate(3, "bolt", due_in=60)]

    chosen = choose(backlog, slots=2, held={"acme": 1}, most_for={"acme": 2})

    assert [job_id.int for job_id in chosen] == [1, 3]


@pytest.mark.parametrize(
    ("capacity", "held", "free"),
    [(10, {}, 10), (10, {"acme": 4, "bolt": 6}, 0), (10, {"acme": 12}, 0), (0, {}, 0)],
)
def test_free_slots_are_what_capacity_leaves_and_never_negative(
    capacity: int, held: dict[str, int], free: int
) -> None:
    assert free_slots(capacity, held) == free
