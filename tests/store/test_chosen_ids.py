"""Enqueueing under an id that the caller chose: made once, however often it is asked for."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from async_jobs.errors import DedupeConflict, JobIdTaken
from async_jobs.models import AcceptedJob, Enqueued, new_job_id
from async_jobs.store.jobs import JobStore

from .factories import BURIED, JobFactory, new_job


def chosen(**changes: Any) -> AcceptedJob:
    return new_job(has_chosen_id=True, **changes)


def count_rows(db: psycopg.Connection[Any]) -> int:
    return len(db.execute("SELECT FROM jobs").fetchall())


async def test_the_same_request_again_is_the_same_answer(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    job = chosen()

    first = await store.enqueue([job])
    second = await store.enqueue([job])

    assert (first, second) == ([Enqueued(job.id, False)], [Enqueued(job.id, True)])
    assert count_rows(db) == 1


async def test_a_payload_written_differently_is_the_same_request(store: JobStore) -> None:
    job_id = new_job_id()
    await store.enqueue([chosen(id=job_id, payload_json='{"a": 1, "b": 2.0}')])

    [again] = await store.enqueue([chosen(id=job_id, payload_json='{"b":2.0,"a":1}')])

    assert again == Enqueued(job_id, True)


async def test_a_finished_job_is_not_made_a_second_time(store: JobStore, jobs: JobFactory) -> None:
    job = await jobs.finished(BURIED)

    [again] = await store.enqueue([chosen(id=job.id)])

    assert again == Enqueued(job.id, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant_id": "bolt"},
        {"use_case": "label"},
        {"type": "resend"},
        {"payload_json": '{"to": "bob"}'},
        {"dedupe_key": "k"},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a batch"])
async def test_another_request_under_the_same_id_is_refused_whole(
    store: JobStore, db: psycopg.Connection[Any], changes: dict[str, Any], alone: bool
) -> None:
    job = chosen()
    await store.enqueue([job])
    other = chosen(id=job.id, **changes)

    with pytest.raises(JobIdTaken) as refused:
        await store.enqueue([other] if alone else [new_job(), chosen(), other])

    assert refused.value.job_id == job.id
    assert count_rows(db) == 1


async def test_a_batch_repeated_after_a_part_of_it_answers_for_each_job(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    batch = [chosen(), chosen(dedupe_key="k"), new_job()]
    await store.enqueue(batch[1:2])

    stored = await store.enqueue([*batch, batch[0]])

    assert [(each.job_id, each.deduplicated) for each in stored] == [
        (batch[0].id, False),
        (batch[1].id, True),
        (batch[2].id, False),
        (batch[0].id, True),
    ]
    assert count_rows(db) == 3


async def test_two_requests_under_one_id_in_a_batch_are_refused(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    job = chosen()

    with pytest.raises(JobIdTaken):
        await store.enqueue([job, chosen(id=job.id, type="resend")])

    assert count_rows(db) == 0


async def test_a_chosen_id_gives_way_to_the_twin_with_its_key(
    store: JobStore, jobs: JobFactory
) -> None:
    twin = await jobs.waiting(dedupe_key="k")
    job = chosen(dedupe_key="k")

    assert await store.enqueue([job]) == [Enqueued(twin.id, True)]
    with pytest.raises(DedupeConflict):
        await store.enqueue([chosen(dedupe_key="k", type="resend")])


async def test_what_is_stored_already_is_found_whole_or_not_at_all(store: JobStore) -> None:
    one, other = chosen(), chosen(dedupe_key="k")
    await store.enqueue([one])

    assert await store.find_stored([one]) == [Enqueued(one.id, True)]
    assert await store.find_stored([one, other]) is None
    assert await store.find_stored([one, new_job()]) is None
    with pytest.raises(JobIdTaken):
        await store.find_stored([chosen(id=one.id, type="resend")])
