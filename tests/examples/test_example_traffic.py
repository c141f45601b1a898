"""The demo's traffic: the same for the same seed, and as varied as it says."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from async_jobs.core.acceptance import accept
from async_jobs.models import new_job_id
from async_jobs.registry import job_registry, load_handlers
from examples.domains import CLOSED, FLAKY, FULL
from examples.mail import render
from examples.traffic import BURST_SECONDS, NOISY_TENANT, TENANTS, Arrival, traffic

BEGAN_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def arrivals() -> list[Arrival]:
    return traffic(400, 20.0, began_at=BEGAN_AT, seed=7)


def test_the_same_seed_gives_the_same_traffic(arrivals: list[Arrival]) -> None:
    assert arrivals == traffic(400, 20.0, began_at=BEGAN_AT, seed=7)
    assert arrivals != traffic(400, 20.0, began_at=BEGAN_AT, seed=8)


@pytest.mark.parametrize(("jobs", "seconds"), [(0, 20.0), (1, 20.0), (7, 20.0), (1000, 0.1)])
def test_there_are_as_many_arrivals_as_asked_for_in_order_and_in_time(
    jobs: int, seconds: float
) -> None:
    moments = [each.at_seconds for each in traffic(jobs, seconds, began_at=BEGAN_AT, seed=7)]

    assert jobs == len(moments)
    assert sorted(moments) == moments
    assert all(0.0 <= moment <= seconds for moment in moments)


def test_every_job_would_be_accepted_and_has_a_handler(arrivals: list[Arrival]) -> None:
    load_handlers("examples.handlers")
    for arrival in arrivals:
        accept(
            arrival.job,
            job_id=new_job_id(),
            queue="q",
            default_tolerance_seconds=60,
            now=BEGAN_AT,
        )

        assert job_registry.handler_for(arrival.job.type)


def test_every_tenant_and_both_use_cases_take_part(arrivals: list[Arrival]) -> None:
    assert set(TENANTS) == {each.job.tenant_id for each in arrivals}
    assert {"notifications", "message_labeling"} == {each.job.use_case for each in arrivals}


def test_tolerances_reach_from_seconds_to_hours(arrivals: list[Arrival]) -> None:
    tolerances = [each.job.delay_tolerance_seconds or 0.0 for each in arrivals]

    assert min(tolerances) <= 5
    assert max(tolerances) >= 3600


def test_the_noisy_tenant_sends_all_it_has_in_two_bursts(arrivals: list[Arrival]) -> None:
    noisy = [each.at_seconds for each in arrivals if each.job.tenant_id == NOISY_TENANT]
    in_bursts = [
        at for at in noisy if 0 <= at - 4 <= BURST_SECONDS or 0 <= at - 12 <= BURST_SECONDS
    ]

    assert len(noisy) >= 150
    assert noisy == in_bursts


def test_some_jobs_arrive_twice_under_one_dedupe_key(arrivals: list[Arrival]) -> None:
    keyed = [each.job for each in arrivals if each.job.dedupe_key]
    by_key = Counter((job.tenant_id, job.dedupe_key) for job in keyed)

    assert by_key
    assert min(by_key.values()) >= 2
    assert len(by_key) == len({(job.dedupe_key, str(job.payload)) for job in keyed})


def test_some_recipients_live_where_mail_is_refused(arrivals: list[Arrival]) -> None:
    recipients = [str(each.job.payload.get("recipient", "")) for each in arrivals]
    domains = {recipient.rpartition("@")[2] for recipient in recipients}

    assert {CLOSED, FULL, FLAKY} <= domains


def test_two_runs_one_after_the_other_share_no_dedupe_key(arrivals: list[Arrival]) -> None:
    later = traffic(400, 20.0, began_at=BEGAN_AT + timedelta(seconds=60), seed=7)
    keys = [
        {each.job.dedupe_key for each in run if each.job.dedupe_key} for run in (arrivals, later)
    ]

    assert keys[0].isdisjoint(keys[1])


def test_every_letter_of_the_traffic_can_be_written(arrivals: list[Arrival]) -> None:
    for arrival in arrivals:
        if arrival.job.type == "send_notification":
            payload = arrival.job.payload
            letter = render(
                payload["template"],
                payload["values"],
                recipient=payload["recipient"],
                tenant_id=arrival.job.tenant_id,
                job_id=new_job_id(),
            )

            assert "$" not in letter.as_string()
