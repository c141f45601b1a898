"""A batch is what its jobs are one by one: what is alike is checked once and sent once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_parts import open_store
from store.factories import MIDNIGHT, SettableClock

from async_jobs import AsyncJobsConfig, JobService, NewJob
from async_jobs.config import UseCaseConfig
from async_jobs.errors import InvalidJob
from async_jobs.ids import new_job_id, new_job_ids
from async_jobs.models import AcceptedJob, Job

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
PLAIN: dict[str, Any] = {"tenant_id": "acme", "use_case": "mail", "type": "send", "payload": {}}
POLICY = {"type": "constant", "base_delay_seconds": 5}


class Text(str):
    """A text of another type that equals a plain one."""


def anew(text: str) -> str:
    """An equal text that is another object, as a parser makes it."""
    return "".join(list(text))


def nested(levels: int) -> dict[str, Any]:
    """An object within an object, so many times."""
    return {"n": nested(levels - 1)} if levels > 1 else {}


DEEP = nested(101)
OTHERS: dict[str, list[Any]] = {
    "tenant_id": ["acme", anew("acme"), Text("acme"), "bolt", "", 7],
    "use_case": ["mail", anew("mail"), "mail-in", "label", "unknown"],
    "type": ["send", anew("send"), "resend", "no name!", anew("no name!")],
    "payload": [
        {},
        {"n": 1},
        {"é": [1, 2]},
        [],
        {"n": float("nan")},
        {"n": 2**63},
        {"n": 2**63 - 1},
        {"n": "\0"},
        {"n": [1, "\0", 2]},
        {"n": "\\u0000"},
        {"n": "\ud800"},
        {"n": "line\nbreak"},
        {"n": "x" * 300},
        {"n": [[[]]] * 99},
        DEEP,
        MappingProxyType({"n": 1}),
    ],
    "queue": [None, "mail", anew("mail"), "elsewhere", anew("elsewhere")],
    "run_at": [None, NOW, LATER, datetime(2030, 1, 1)],  # noqa: DTZ001 - refused
    "delay_tolerance_seconds": [
        *(None, 0, 0.0, -0.0, False, 60, 60.0, float("60"), -1, float("nan"), float("nan"))
    ],
    "max_attempts": [3, 1, True, 0, 1.0],
    "backoff_policy": [None, POLICY, {"type": "none"}],
    "dedupe_key": [None, "k", "", " "],
    "priority": [0, 1, True, 10**6],
    "parent_deadline_at": [None, LATER, "soon"],
    "reject_if_infeasible": [False, True, 0],
    "job_id": [None, new_job_id(), "an id"],
    "timeout_seconds": [None, 1, True, 0],
}
JOBS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in OTHERS.items()}
).map(lambda changes: NewJob(**PLAIN | changes))
BATCHES = st.lists(JOBS, min_size=1, max_size=6).flatmap(
    # Runs of the same job, as batches have them.
    lambda jobs: st.lists(st.sampled_from(jobs), max_size=12)
)


def service(store: Any = None) -> JobService:
    names = ("mail", "mail_in", "label")
    use_cases = {name: UseCaseConfig(name=name) for name in names}
    return JobService(AsyncJobsConfig(db_dsn="postgresql://x/y", use_cases=use_cases), store)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_equal_and_not_the_same_is_looked_at_again(name: str) -> None:
    """True equals 1, and is no number of attempts."""
    for one, other in permutations(OTHERS[name], 2):
        accepts_as_one_by_one([NewJob(**PLAIN | {name: value}) for value in (one, other, one)])


@settings(max_examples=80, deadline=None)
@given(BATCHES)
def test_a_batch_is_accepted_as_its_jobs_are_one_by_one(batch: list[NewJob]) -> None:
    accepts_as_one_by_one(batch)


def accepts_as_one_by_one(batch: list[NewJob]) -> None:
    mine = service()
    alone: list[AcceptedJob] = []
    refused: InvalidJob | None = None
    for new in batch:
        try:
            alone.append(mine._accept(new, new_job_id(), NOW))
        except InvalidJob as error:
            refused = error
            break
    if refused is not None:
        with pytest.raises(InvalidJob) as refusal:
            mine._accept_all(batch, NOW)
        found = refusal.value
        assert (found.field, found.code, found.index) == (refused.field, refused.code, len(alone))
        return
    accepted = mine._accept_all(batch, NOW)

    assert [job._replace(id=alone[at].id) for at, job in enumerate(accepted)] == alone
    assert [repr(job[1:]) for job in accepted] == [repr(job[1:]) for job in alone]


def test_ids_of_a_batch_are_in_its_order() -> None:
    ids = new_job_ids(1_000)

    assert ids == sorted(ids)
    assert len(set(ids)) == 1_000
    assert {(one.version, one.variant) for one in ids} == {(7, new_job_id().variant)}
    assert abs((ids[0].int >> 80) - (new_job_id().int >> 80)) < 60_000


def without_id(row: Job) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Job.__dataclass_fields__ if name != "id"}


async def test_every_column_is_stored_as_it_would_be_alone(emptied_database: str) -> None:
    """Each column once with one value throughout, and once with a value that differs."""
    fine: dict[str, Any] = {
        "tenant_id": "bolt",
        "use_case": "label",
        "type": "resend",
        "payload": {"n": 1},
        "run_at": MIDNIGHT + timedelta(hours=1),
        "delay_tolerance_seconds": 5.5,
        "max_attempts": 7,
        "backoff_policy": POLICY,
        "dedupe_key": "k",
        "priority": -5,
        "parent_deadline_at": MIDNIGHT + timedelta(seconds=3),
        "job_id": None,
        "timeout_seconds": 2.5,
    }
    async with open_store(emptied_database, clock=SettableClock()) as store:
        mine = service(store)

        async def stored(batch: list[NewJob]) -> list[dict[str, Any]]:
            accepted = mine._accept_all(batch, MIDNIGHT)
            return [
                without_id(row)
                for one in await store.enqueue(accepted)
                if (row := await store.get(one.job_id))
            ]

        for name, value in fine.items():
            plain, other = NewJob(**PLAIN), NewJob(**PLAIN | {name: value})
            alone = [(await stored([one]))[0] for one in (plain, other)]
            if name == "dedupe_key":
                continue
            assert await stored([plain, other, plain]) == [alone[0], alone[1], alone[0]]
            assert await stored([other, other]) == [alone[1]] * 2
