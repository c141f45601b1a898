"""Filters find what they say, page by page, in bounded looks; moves take what was found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from async_jobs.core.filters import JobFilter, parsed_filter
from async_jobs.core.outcome import Outcome
from async_jobs.errors import InvalidJob
from async_jobs.models import JobStatus
from async_jobs.store.jobs import JobStore

from .factories import BURIED, MIDNIGHT, RETRIED, JobFactory, SettableClock


async def found(store: JobStore, wanted: JobFilter, *, look: int = 1_000) -> set[UUID]:
    return set((await store.matching.find(wanted, before=None, most=100, look=look)).ids)


async def one_of_each(jobs: JobFactory) -> dict[str, UUID]:
    """A job in every status and kind of pending."""
    later = MIDNIGHT + timedelta(hours=1)
    made: dict[str, Any] = {
        "waiting": await jobs.waiting(),
        "scheduled": await jobs.waiting(run_at=later),
        "running": await jobs.running(type="run"),
        "succeeded": await jobs.finished(),
        "dead": await jobs.finished(BURIED),
        "cancelled": await jobs.waiting(),
        "leased": await jobs.leased(),
    }
    await jobs.store.cancel(made["cancelled"].id)
    return {name: getattr(job, "job_id", None) or job.id for name, job in made.items()}


@pytest.mark.parametrize(
    "status", ["waiting", "scheduled", "leased", "running", "succeeded", "dead", "cancelled"]
)
async def test_each_status_and_each_kind_of_pending_is_found_alone(
    jobs: JobFactory, store: JobStore, status: str
) -> None:
    made = await one_of_each(jobs)

    assert await found(store, JobFilter(status=status)) == {made[status]}


async def test_pending_is_all_of_its_kinds_and_no_filter_is_everything(
    jobs: JobFactory, store: JobStore
) -> None:
    made = await one_of_each(jobs)

    pending = await found(store, JobFilter(status="pending"))
    assert pending == {made["waiting"], made["scheduled"], made["leased"]}
    assert await found(store, JobFilter()) == set(made.values())


async def test_jobs_are_found_by_name_key_and_failure(jobs: JobFactory, store: JobStore) -> None:
    plain = await jobs.waiting()
    other = await jobs.waiting(tenant_id="bolt", use_case="calls", type="ring", dedupe_key="k 1")
    tried = await jobs.finished(RETRIED, dedupe_key="k 2")
    dead = await jobs.finished(Outcome(**{**_fields(BURIED), "error_json": '{"type": "Other"}'}))

    for wanted, expected in (
        (JobFilter(tenant_id="bolt"), {other.id}),
        (JobFilter(use_case="calls"), {other.id}),
        (JobFilter(type="ring"), {other.id}),
        (JobFilter(dedupe_key="k 1"), {other.id}),
        (JobFilter(tenant_id="acme", dedupe_key="k 1"), set()),
        (JobFilter(failed=True), {tried.id, dead.id}),
        (JobFilter(error="Boom"), {tried.id}),
        (JobFilter(use_case="mail", failed=True, status="dead"), {dead.id}),
    ):
        assert await found(store, wanted) == expected, wanted
    assert plain.id in await found(store, JobFilter())


async def test_late_is_waiting_past_the_deadline_or_started_after_the_first_one(
    jobs: JobFactory, store: JobStore, clock: SettableClock
) -> None:
    in_time = await jobs.finished(RETRIED)
    waits = await jobs.waiting()
    patient = await jobs.waiting(delay_tolerance_seconds=1e6)
    clock.advance(61)
    late = await jobs.finished(RETRIED)
    on_the_way = await jobs.leased(delay_tolerance_seconds=0.0, run_at=MIDNIGHT)
    started_late = await jobs.running(run_at=MIDNIGHT)
    found_late = await found(store, JobFilter(late=True))

    assert waits.id in found_late
    assert on_the_way.job_id in found_late
    assert started_late.id in found_late
    assert patient.id not in found_late
    assert late.id not in found_late
    assert in_time.id not in found_late


async def test_ranges_include_their_beginning_and_not_their_end(
    live_jobs: JobFactory, live_store: JobStore
) -> None:
    job = await live_jobs.waiting(run_at=MIDNIGHT)
    created = (await live_jobs.row(job.id)).created_at
    after = timedelta(microseconds=1)

    for wanted, is_found in (
        (JobFilter(run_from=MIDNIGHT), True),
        (JobFilter(run_from=MIDNIGHT + after), False),
        (JobFilter(run_until=MIDNIGHT), False),
        (JobFilter(run_until=MIDNIGHT + after), True),
        (JobFilter(enqueued_from=created), True),
        (JobFilter(enqueued_from=created + after), False),
        (JobFilter(enqueued_until=created), False),
    ):
        assert bool(await found(live_store, wanted)) is is_found, wanted


async def test_as_of_goes_by_the_row_and_not_by_the_id(
    live_jobs: JobFactory, live_store: JobStore
) -> None:
    job = await live_jobs.waiting(id=UUID("f47ac10b-58cc-4372-a567-0e02b2c3d479"))
    created = (await live_jobs.row(job.id)).created_at

    for as_of, ids in ((created, []), (created + timedelta(microseconds=1), [job.id])):
        page = await live_store.matching.find(JobFilter(), before=None, most=9, look=9, as_of=as_of)
        assert page.ids == ids


async def test_pages_follow_one_another_and_miss_nothing(jobs: JobFactory, store: JobStore) -> None:
    """Held jobs are in another index: they must neither come twice nor hide what is above them."""
    made = await one_of_each(jobs)
    for _ in range(9):
        made[uuid4().hex] = (await jobs.waiting()).id
    for most in (1, 3, 20):
        for look in (1, 2, 5, 100):
            seen: list[UUID] = []
            cursor, pages = None, 0
            while pages == 0 or cursor is not None:
                page = await store.matching.find(JobFilter(), before=cursor, most=most, look=look)
                seen, cursor, pages = [*seen, *page.ids], page.cursor, pages + 1
                assert pages < 50
            assert seen == sorted(made.values(), reverse=True), (most, look)


async def test_a_look_that_is_cut_off_says_so_and_goes_on(
    jobs: JobFactory, store: JobStore
) -> None:
    dead = await jobs.finished(BURIED)
    for _ in range(5):
        await jobs.waiting()

    first = await store.matching.find(JobFilter(status="dead"), before=None, most=10, look=3)
    second = await store.matching.find(
        JobFilter(status="dead"), before=first.cursor, most=10, look=3
    )

    assert (first.ids, first.looked_through) == ([], 3)
    assert second.ids == [dead.id]


async def test_a_cancel_takes_what_is_unfinished_and_only_once(
    jobs: JobFactory, store: JobStore
) -> None:
    made = await one_of_each(jobs)

    moved = await store.matching.move("cancel", list(made.values()), status=None, more_attempts=3)
    again = await store.matching.move("cancel", list(made.values()), status=None, more_attempts=3)

    open_ones = ("waiting", "scheduled", "leased", "running")
    assert {job.job_id for job in moved} == {made[name] for name in open_ones}
    assert again == []
    for name in open_ones[:3]:
        assert (await jobs.row(made[name])).status is JobStatus.CANCELLED
    assert (await jobs.row(made["running"])).cancel_requested_at is not None


async def test_the_audit_line_tells_the_filter_and_how_many_were_chosen(store: JobStore) -> None:
    await store.matching.write("cancel", JobFilter(use_case="mail"), chosen=4, actor="ada")

    [told] = await store.steering.find_audit()
    assert (told.actor, told.move, told.use_case) == ("ada", "cancel", "mail")
    assert told.after == {"chosen": 4, "matching": {"use_case": "mail"}}


async def test_a_job_that_is_no_longer_what_was_looked_for_stays(
    jobs: JobFactory, store: JobStore
) -> None:
    running = await jobs.running()

    moved = await store.matching.move("cancel", [running.id], status="waiting", more_attempts=3)

    assert moved == []
    assert (await jobs.row(running.id)).cancel_requested_at is None


async def test_a_probe_is_cancelled_like_any_job_and_stays_one_while_it_runs(
    jobs: JobFactory, store: JobStore
) -> None:
    running = await jobs.start(await jobs.leased_probe())
    leased = await jobs.leased_probe()

    moved = await store.matching.move(
        "cancel", [running.id, leased.job_id], status=None, more_attempts=3
    )

    rows = [await jobs.row(running), await jobs.row(leased)]
    assert len(moved) == 2
    assert [(row.status.value, row.probe) for row in rows] == [
        ("running", True),
        ("cancelled", False),
    ]


async def test_a_requeue_takes_only_the_status_that_was_looked_for(
    jobs: JobFactory, store: JobStore
) -> None:
    succeeded, dead = await jobs.finished(), await jobs.finished(BURIED)

    moved = await store.matching.move(
        "requeue", [succeeded.id, dead.id], status="dead", more_attempts=3
    )

    assert [job.job_id for job in moved] == [dead.id]


async def test_a_requeue_leaves_keys_to_whoever_holds_them(
    jobs: JobFactory, store: JobStore
) -> None:
    dead = [await jobs.finished(BURIED, dedupe_key="twice") for _ in range(2)]
    held = await jobs.finished(BURIED, dedupe_key="held")
    await jobs.waiting(dedupe_key="held")
    await jobs.waiting(dedupe_key="elsewhere", tenant_id="bolt")
    plain = [await jobs.finished(BURIED, dedupe_key=key) for key in (None, None, "elsewhere")]
    ids = [job.id for job in (*dead, held, *plain)]

    moved = await store.matching.move("requeue", ids, status="dead", more_attempts=3)

    assert {job.job_id for job in moved} == {dead[1].id, *(job.id for job in plain)}
    row = await jobs.row(dead[1].id)
    assert (row.status, row.due, row.max_attempts) == (JobStatus.PENDING, True, 4)
    assert (await jobs.row(held.id)).status is JobStatus.DEAD


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("status", "late"),
        ("tenant_id", "<b>"),
        ("use_case", "'; DROP TABLE jobs"),
        ("dedupe_key", "\x00"),
        ("dedupe_key", "k" * 201),
        ("error", "a\nb"),
        ("late", "no"),
        ("run_from", "yesterday"),
        ("run_until", "0001-01-01T00:00"),
        ("enqueued_from", "9999-12-31T23:59:59-23:59"),
    ],
)
def test_what_no_job_can_have_is_refused_and_not_repeated(name: str, text: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        parsed_filter({name: text})

    assert refused.value.field == name
    assert text not in str(refused.value).removeprefix(name)


def test_a_filter_reads_what_it_tells() -> None:
    at = MIDNIGHT.astimezone(UTC)
    whole = JobFilter(
        tenant_id="acme", use_case="mail", status="waiting", type="send", error="Boom!",
        dedupe_key="a b", late=True, failed=True, enqueued_from=at,
        run_until=at + timedelta(days=1),
        enqueued_until=at + timedelta(microseconds=7),
    )  # fmt: skip

    assert parsed_filter(whole.told()) == whole
    assert parsed_filter({}) == JobFilter()
    assert parsed_filter({"run_from": "2030-01-01T01:00+01:00"}) == JobFilter(run_from=at)
    assert replace(whole, late=False) != whole


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {"move": outcome.move, "status": outcome.status}
