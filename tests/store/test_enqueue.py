"""The enqueue move: batches, dedupe, quotas."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from async_jobs.errors import DedupeConflict, QuotaExceeded
from async_jobs.models import JobStatus
from async_jobs.store.jobs import JobStore

from .factories import MIDNIGHT, SUCCEEDED, JobFactory, SettableClock, new_job

USE_CASES = ["mail", "label"]


def count_rows(db: psycopg.Connection[Any]) -> int:
    row = db.execute("SELECT count(*) FROM jobs").fetchone()
    assert row is not None
    return int(row[0])


async def test_a_job_is_stored_with_every_field(store: JobStore, jobs: JobFactory) -> None:
    job = new_job(
        run_at=MIDNIGHT - timedelta(seconds=5),
        delay_tolerance_seconds=1.5,
        max_attempts=7,
        backoff_json='{"type": "constant"}',
        dedupe_key="order 7",
        priority=-3,
        payload_json='{"to": "Ünï", "n": [1, 2.5, null]}',
    )
    await store.enqueue([job])

    row = await jobs.row(job)
    assert (row.tenant_id, row.use_case, row.type, row.queue) == (
        "acme",
        "mail",
        "send",
        "mail-queue",
    )
    assert row.payload == {"to": "Ünï", "n": [1, 2.5, None]}
    assert (row.run_at, row.deadline_at) == (job.run_at, MIDNIGHT - timedelta(seconds=3.5))
    assert (row.delay_tolerance_seconds, row.max_attempts, row.priority) == (1.5, 7, -3)
    assert (row.backoff_policy, row.dedupe_key) == ({"type": "constant"}, "order 7")
    assert (row.status, row.attempts, row.lease_seq, row.due) == (JobStatus.PENDING, 0, 0, True)
    assert (row.created_at, row.updated_at) == (MIDNIGHT, MIDNIGHT)
    assert not row.enqueue_failed


async def test_a_job_without_run_at_runs_from_now(store: JobStore, jobs: JobFactory) -> None:
    row = await jobs.row(await jobs.waiting())

    assert (row.run_at, row.deadline_at) == (MIDNIGHT, MIDNIGHT + timedelta(seconds=60))


async def test_a_job_of_the_future_is_not_due(store: JobStore, jobs: JobFactory) -> None:
    row = await jobs.row(await jobs.waiting(run_at=MIDNIGHT + timedelta(microseconds=1)))

    assert not row.due


async def test_a_batch_answers_in_its_own_order(store: JobStore) -> None:
    batch = [new_job(dedupe_key=key) for key in ("b", None, "a", None, "c")]

    stored = await store.enqueue(batch)

    assert [job.id for job in batch] == [enqueued.job_id for enqueued in stored]
    assert not any(enqueued.deduplicated for enqueued in stored)


async def test_a_large_batch_is_stored_whole(store: JobStore, db: psycopg.Connection[Any]) -> None:
    await store.enqueue([new_job() for _ in range(5_000)])

    assert count_rows(db) == 5_000


async def test_an_empty_batch_stores_nothing(store: JobStore, db: psycopg.Connection[Any]) -> None:
    assert await store.enqueue([]) == []
    assert count_rows(db) == 0


async def test_one_bad_job_keeps_the_whole_batch_out(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await store.enqueue([new_job(), new_job(dedupe_key="x"), new_job(max_attempts=0)])

    assert count_rows(db) == 0


# Dedupe


async def test_an_unfinished_twin_is_found_instead(store: JobStore, jobs: JobFactory) -> None:
    first = await jobs.waiting(dedupe_key="k")

    (second,) = await store.enqueue([new_job(dedupe_key="k")])

    assert (second.job_id, second.deduplicated) == (first.id, True)


async def test_a_twin_is_the_same_whatever_the_order_of_its_keys(store: JobStore) -> None:
    texts = ['{"a": 1, "b": {"c": 2, "d": 3}}', '{"b": {"d": 3, "c": 2}, "a": 1}']
    one, other = (new_job(dedupe_key="k", payload_json=text) for text in texts)

    (stored,) = await store.enqueue([one])
    in_two = await store.enqueue([other])
    in_one = await store.enqueue([other, one])

    assert {stored.job_id} == {enqueued.job_id for enqueued in (*in_two, *in_one)}


async def test_twins_of_one_batch_become_one_job(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    texts = ['{"a": 1, "b": 2}', '{"b": 2, "a": 1}']
    batch = [new_job(dedupe_key="k", payload_json=text) for text in texts]

    first, second = await store.enqueue(batch)

    assert (first.job_id, first.deduplicated) == (batch[0].id, False)
    assert (second.job_id, second.deduplicated) == (batch[0].id, True)
    assert count_rows(db) == 1


@pytest.mark.parametrize(
    "changes",
    [{"payload_json": '{"to": "bob"}'}, {"type": "resend"}, {"use_case": "label"}],
    ids=lambda changes: next(iter(changes)),
)
async def test_the_same_key_for_another_request_is_refused_with_the_id(
    store: JobStore, jobs: JobFactory, db: psycopg.Connection[Any], changes: dict[str, Any]
) -> None:
    first = await jobs.waiting(dedupe_key="k")

    for batch in (
        [new_job(dedupe_key="k", **changes)],
        [new_job(), new_job(dedupe_key="k", **changes)],
    ):
        with pytest.raises(DedupeConflict) as refusal:
            await store.enqueue(batch)
        assert refusal.value.job_id == first.id

    assert count_rows(db) == 1


async def test_one_batch_with_one_key_for_two_requests_is_refused(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    batch = [new_job(dedupe_key="k"), new_job(dedupe_key="k", type="resend"), new_job()]
    with pytest.raises(DedupeConflict):
        await store.enqueue(batch)

    assert count_rows(db) == 0


async def test_a_finished_twin_does_not_count(store: JobStore, jobs: JobFactory) -> None:
    await jobs.finished(SUCCEEDED, dedupe_key="k")

    (second,) = await store.enqueue([new_job(dedupe_key="k")])

    assert not second.deduplicated


async def test_a_running_twin_counts(store: JobStore, jobs: JobFactory) -> None:
    first = await jobs.running(dedupe_key="k")

    (second,) = await store.enqueue([new_job(dedupe_key="k")])

    assert (second.job_id, second.deduplicated) == (first.id, True)


async def test_tenants_do_not_share_keys(store: JobStore, jobs: JobFactory) -> None:
    await jobs.waiting(dedupe_key="k")

    (other,) = await store.enqueue([new_job(dedupe_key="k", tenant_id="bolt")])

    assert not other.deduplicated


async def test_finding_a_twin_changes_nothing_on_it(
    store: JobStore, jobs: JobFactory, clock: SettableClock
) -> None:
    before = await jobs.row(await jobs.waiting(dedupe_key="k"))
    clock.advance(10)

    await store.enqueue([new_job(dedupe_key="k", priority=9, run_at=MIDNIGHT)])

    assert await jobs.row(before.id) == before


# Quotas


async def test_a_quota_lets_in_exactly_as_many(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    await store.enqueue([new_job(), new_job()], quotas={"acme": 3}, use_cases=USE_CASES)
    with pytest.raises(QuotaExceeded) as refusal:
        await store.enqueue([new_job(), new_job()], quotas={"acme": 3}, use_cases=USE_CASES)
    await store.enqueue([new_job()], quotas={"acme": 3}, use_cases=USE_CASES)

    assert (refusal.value.tenant_id, refusal.value.limit) == ("acme", 3)
    assert count_rows(db) == 3


async def test_a_refused_tenant_is_told_when_there_will_be_room(
    store: JobStore, jobs: JobFactory, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four jobs that have run for 10 s: one ends every 2.5 s, so six more than fit take 15 s."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    for _ in range(4):
        await jobs.running()
    clock.advance(10)

    with pytest.raises(QuotaExceeded) as refusal:
        await store.enqueue([new_job() for _ in range(7)], quotas={"acme": 5}, use_cases=USE_CASES)

    assert refusal.value.retry_after_seconds == pytest.approx(15.0)


async def test_a_refused_tenant_that_runs_nothing_is_told_a_few_seconds(
    store: JobStore, jobs: JobFactory
) -> None:
    await jobs.waiting()
    with pytest.raises(QuotaExceeded) as refusal:
        await store.enqueue([new_job()], quotas={"acme": 1}, use_cases=USE_CASES)

    assert refusal.value.retry_after_seconds == 5.0


async def test_waiting_scheduled_leased_and_running_jobs_all_count(
    store: JobStore, jobs: JobFactory
) -> None:
    await jobs.running()
    await jobs.leased(use_case="label")
    await jobs.waiting()
    await jobs.waiting(run_at=MIDNIGHT + timedelta(hours=1))

    await store.enqueue([new_job()], quotas={"acme": 5}, use_cases=USE_CASES)
    with pytest.raises(QuotaExceeded):
        await store.enqueue([new_job()], quotas={"acme": 5}, use_cases=USE_CASES)


async def test_finished_jobs_and_those_of_others_do_not_count(
    store: JobStore, jobs: JobFactory
) -> None:
    await jobs.finished()
    await jobs.waiting(tenant_id="bolt")

    stored = await store.enqueue([new_job()], quotas={"acme": 1}, use_cases=USE_CASES)

    assert len(stored) == 1


async def test_a_tenant_over_its_quota_keeps_the_whole_batch_out(
    store: JobStore, db: psycopg.Connection[Any]
) -> None:
    batch = [new_job(), new_job(tenant_id="bolt"), new_job(tenant_id="core")]
    with pytest.raises(QuotaExceeded) as refusal:
        await store.enqueue(batch, quotas={"acme": 5, "bolt": 0}, use_cases=USE_CASES)

    assert refusal.value.tenant_id == "bolt"
    assert count_rows(db) == 0


async def test_a_twin_needs_no_room_in_the_quota(store: JobStore, jobs: JobFactory) -> None:
    first = await jobs.waiting(dedupe_key="k")
    quota = {"quotas": {"acme": 2}, "use_cases": USE_CASES}

    batch = [new_job(dedupe_key=key) for key in ("k", "k", "new", "new")]
    stored = await store.enqueue(batch, **quota)  # type: ignore[arg-type] # mixed keywords
    full = await store.enqueue([new_job(dedupe_key="k")], **quota)  # type: ignore[arg-type] # same

    assert [first.id, first.id, batch[2].id, batch[2].id] == [one.job_id for one in stored]
    assert full[0].job_id == first.id


async def test_a_second_key_over_the_quota_is_refused(store: JobStore, jobs: JobFactory) -> None:
    await jobs.waiting(dedupe_key="k")

    with pytest.raises(QuotaExceeded):
        await store.enqueue(
            [new_job(dedupe_key="k"), new_job(dedupe_key="other")],
            quotas={"acme": 1},
            use_cases=USE_CASES,
        )


async def test_a_twin_needs_no_room_even_over_the_quota(store: JobStore, jobs: JobFactory) -> None:
    first = await jobs.waiting(dedupe_key="k")
    await jobs.waiting()

    (twin,) = await store.enqueue(
        [new_job(dedupe_key="k")], quotas={"acme": 1}, use_cases=USE_CASES
    )

    assert twin.job_id == first.id


async def test_a_refusal_says_what_to_do(store: JobStore) -> None:
    with pytest.raises(QuotaExceeded, match="max_pending_jobs in ASYNC_JOBS_PER_TENANT_QUOTAS"):
        await store.enqueue([new_job()], quotas={"acme": 0}, use_cases=USE_CASES)
