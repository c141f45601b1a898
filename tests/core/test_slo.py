"""The arithmetic of promises: histograms, the error budget, alerts, fairness."""

from __future__ import annotations

import math

import pytest

from async_jobs.core.slo import (
    MOST_TENANTS,
    WINDOWS,
    Alert,
    Histogram,
    Key,
    Measure,
    Promises,
    Slack,
    SloRecord,
    alert_for,
    bucket_labels,
    jain_index,
    slack_ratio,
    span_for,
)

ALL = Key("mail", "", Measure.START)


def started(*slacks_seconds: float, tolerance_seconds: float = 10.0) -> Histogram:
    record = SloRecord()
    for seconds in slacks_seconds:
        record.started("mail", Slack("acme", seconds, tolerance_seconds))
    return record.take()[ALL]


def test_slack_is_counted_in_the_bucket_of_its_share_of_the_tolerance() -> None:
    histogram = started(-20.0, -10.0, -0.5, 0.0, 1.9, 2.0, 5.0, 9.9, 10.0)

    assert histogram.buckets == [1, 1, 1, 2, 1, 2, 1]
    assert (histogram.total, histogram.late) == (9, 3)
    assert histogram.sum_seconds == pytest.approx(-1.7)


def test_a_start_exactly_at_the_deadline_keeps_the_promise() -> None:
    assert started(0.0).late == 0
    assert started(-0.000001).late == 1


def test_without_a_tolerance_a_job_is_in_time_or_infinitely_late() -> None:
    assert slack_ratio(0.0, 0.0) == 1.0
    assert slack_ratio(-0.001, 0.0) == -math.inf
    assert started(-0.001, tolerance_seconds=0.0).buckets[0] == 1


def test_seconds_are_counted_in_buckets_of_seconds() -> None:
    record = SloRecord()
    for seconds in (0.05, 0.1, 59.0, 60.0, 3_600.0):
        record.ended("mail", Slack("acme", 0.0, 10.0), ran_seconds=seconds, finished=False)

    histogram = record.take()[Key("mail", "", Measure.RUN)]

    assert histogram.buckets == [1, 1, 0, 1, 1, 0, 1]
    assert histogram.late == 0


@pytest.mark.parametrize("measure", Measure)
def test_every_bucket_has_a_label(measure: Measure) -> None:
    assert len(bucket_labels(measure.bounds)) == len(Histogram().buckets)


def test_labels_name_the_bounds() -> None:
    assert bucket_labels((-1.0, 0.0, 0.5)) == ["<-1", "-1..0", "0..0.5", ">=0.5"]


def test_tenants_are_counted_by_themselves_only_when_asked() -> None:
    quiet, asked = SloRecord(), SloRecord(by_tenant=True)
    for record in (quiet, asked):
        record.started("mail", Slack("acme", 1.0, 10.0))

    assert [key.tenant_id for key in quiet.take()] == [""]
    assert [key.tenant_id for key in asked.take()] == ["", "acme"]


def test_tenants_beyond_the_bound_are_counted_among_all() -> None:
    record = SloRecord(by_tenant=True)
    for number in range(2 * MOST_TENANTS):
        record.started("mail", Slack(f"tenant {number}", 1.0, 10.0))

    counts = record.take()

    assert len(counts) == 1 + MOST_TENANTS
    assert counts[ALL].total == 2 * MOST_TENANTS


def test_what_was_taken_is_gone_and_what_is_put_back_is_added() -> None:
    record = SloRecord()
    record.started("mail", Slack("acme", -1.0, 10.0))
    first = record.take()
    assert record.take() == {}

    record.started("mail", Slack("acme", 1.0, 10.0))
    record.put_back(first)

    histogram = record.take()[ALL]
    assert (histogram.total, histogram.late, sum(histogram.buckets)) == (2, 1, 2)


def test_an_outage_cannot_make_the_record_grow_without_end() -> None:
    record = SloRecord(by_tenant=True)
    for outage in range(3):
        for number in range(MOST_TENANTS):
            slack = Slack(f"tenant {outage} {number}", 1.0, 10.0)
            record.started("mail", slack)
        counts = record.take()
        record.started("mail", Slack(f"tenant {outage}", 1.0, 10.0))
        record.put_back(counts)

    counts = record.take()

    assert len(counts) <= 1 + MOST_TENANTS
    assert counts[ALL].total == 3 * (MOST_TENANTS + 1)


def test_the_burn_rate_is_the_late_share_over_the_allowed_share() -> None:
    promises = Promises(started=1_000, late=20)

    assert promises.kept_share == pytest.approx(0.98)
    assert promises.burn_rate(0.99) == pytest.approx(2.0)
    assert promises.budget_left(0.99) == pytest.approx(-1.0)
    assert Promises(1_000, 5).budget_left(0.99) == pytest.approx(0.5)


def test_nothing_started_burns_nothing() -> None:
    assert Promises().burn_rate(0.99) == 0.0
    assert Promises().budget_left(0.99) == 1.0
    assert Promises().kept_share is None


@pytest.mark.parametrize(
    ("rates", "alert"),
    [
        ({"5m": 14.4, "1h": 14.4}, Alert.PAGE),
        ({"5m": 14.3, "1h": 20.0}, Alert.NONE),
        ({"5m": 0.0, "30m": 6.0, "1h": 6.0, "6h": 6.0}, Alert.PAGE),
        ({"6h": 1.0, "3d": 1.0}, Alert.TICKET),
        ({"6h": 0.9, "3d": 5.0}, Alert.NONE),
        ({}, Alert.NONE),
    ],
)
def test_an_alert_needs_its_long_and_its_short_window(
    rates: dict[str, float], alert: Alert
) -> None:
    assert alert_for(rates) is alert


def test_jains_index_is_one_for_equals_and_falls_to_a_share_for_one_who_has_all() -> None:
    assert jain_index([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain_index([3.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain_index([]) is None
    assert jain_index([0.0]) is None


def test_short_windows_are_summed_from_minutes_and_long_ones_from_hours() -> None:
    assert {name: span_for(seconds) for name, seconds in WINDOWS.items()} == {
        "5m": 60,
        "30m": 60,
        "1h": 60,
        "6h": 60,
        "1d": 3_600,
        "3d": 3_600,
        "30d": 3_600,
    }
