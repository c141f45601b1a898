"""A trace is read as it was written, and a fault in it is told by line and column."""

from __future__ import annotations

import pytest
from hypothesis import given

from async_jobs.errors import TraceError
from async_jobs.simulation.arrivals import (
    Workload,
    from_trace,
    header,
    lines_of,
    read_arrivals,
)

from .made import crowded_workloads, job, workload

SMALL = "run_at,tenant_id,run_seconds,delay_tolerance_seconds\n"
SECRET = "4711-secret"


def read(text: str) -> Workload:
    return from_trace("trace.csv", text.splitlines(keepends=True))


@given(crowded_workloads())
def test_what_is_written_is_read_back(jobs: Workload) -> None:
    lines = (header() + lines_of(jobs.arrivals)).splitlines(keepends=True)

    assert list(read_arrivals(lines)) == jobs.arrivals


def test_four_columns_are_enough() -> None:
    trace = read(SMALL + "0,acme,1.5,30\n")

    assert trace.arrivals == [job(runs=1.5, tolerates=30)._replace(type="job")]


def test_other_columns_and_their_order_do_not_matter() -> None:
    trace = read("x,run_seconds,tenant_id,delay_tolerance_seconds,run_at\n?,2,acme,3,0\n")

    assert trace.arrivals == [job(runs=2, tolerates=3)._replace(type="job")]


def test_jobs_may_come_in_any_order_and_time_starts_with_the_first() -> None:
    trace = read(SMALL + "500.5,acme,1,1\n500,bolt,1,1\n")

    assert [(each.run_at, each.tenant_id) for each in trace.arrivals] == [
        (0, "bolt"),
        (0.5, "acme"),
    ]


def test_times_may_be_dates() -> None:
    trace = read(
        SMALL
        + "2026-03-01T08:00:00Z,acme,1,1\n2026-03-01 08:00:01.5,acme,1,1\n"
        + "2026-03-01T09:00:02+01:00,acme,1,1\n"
    )

    assert [each.run_at for each in trace.arrivals] == [0.0, 1.5, 2.0]


def test_the_capacity_of_a_trace_is_its_mean_demand_and_its_noisy_tenant_the_largest() -> None:
    jobs = [job(at, "bolt", runs=3.0) for at in range(10)]
    jobs += [job(10, runs=3.0, fails=1)]

    trace = from_trace("x", [header(), *lines_of(jobs).splitlines(keepends=True)])

    assert trace.capacity == 4
    assert trace.noisy == {"bolt"}


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, "run_at"),
        ("run_at,tenant_id,run_seconds\n", 1, "delay_tolerance_seconds"),
        (SMALL, 1, "run_at"),
        (SMALL + f"0,acme,1,1\n{SECRET},acme,1,1\n", 3, "run_at"),
        (SMALL + "nan,acme,1,1\n", 2, "run_at"),
        (SMALL + "0,,1,1\n", 2, "tenant_id"),
        (SMALL + f"0,acme,{SECRET},1\n", 2, "run_seconds"),
        (SMALL + "0,acme,-1,1\n", 2, "run_seconds"),
        (SMALL + "0,acme,1,inf\n", 2, "delay_tolerance_seconds"),
        (SMALL + "0,acme\n", 2, "run_seconds"),
        ("max_attempts," + SMALL + "0,0,acme,1,1\n", 2, "max_attempts"),
        ("priority," + SMALL + f"{SECRET},0,acme,1,1\n", 2, "priority"),
        ("failing_attempts," + SMALL + "-1,0,acme,1,1\n", 2, "failing_attempts"),
    ],
)
def test_a_fault_is_told_by_line_and_column_and_never_shows_the_value(
    text: str, line: int, column: str
) -> None:
    with pytest.raises(TraceError) as refused:
        read(text)

    assert (refused.value.line, refused.value.column) == (line, column)
    assert str(refused.value).startswith(f"Line {line}, column {column}: ")
    assert SECRET not in str(refused.value)


def test_attempts_are_the_failing_ones_and_the_last_within_the_bound() -> None:
    assert [job(fails=fails, most=3).attempts for fails in (0, 1, 2, 3, 9)] == [1, 2, 3, 3, 3]
    assert workload(job(runs=2, fails=1), job(runs=5)).work_seconds == 9


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("run_at," + SMALL + "0,0,acme,1,1\n", 1, "run_at"),
        (SMALL.replace(",", ";") + "0;acme;1;1\n", 1, "run_at"),
        (SMALL + "0,acme,1,1\n0,acme, inc,1,1\n", 3, "5"),
        (SMALL + '0,"acme,1,1\n' + "x" * 200_000, 2, "1"),
        (SMALL + "0,ac\0me,1,1\n", 2, "tenant_id"),
        (SMALL + "1709251200000,acme,1,1\n", 2, "run_at"),
        (SMALL + "0,acme,1e300,1\n", 2, "run_seconds"),
        (SMALL + "0,acme,1,1e11\n", 2, "delay_tolerance_seconds"),
    ],
)
def test_what_a_careless_conversion_leaves_behind_is_told_too(
    text: str, line: int, column: str
) -> None:
    with pytest.raises(TraceError) as refused:
        read(text)

    assert (refused.value.line, refused.value.column) == (line, column)


def test_milliseconds_are_told_from_seconds() -> None:
    with pytest.raises(TraceError, match="divide milliseconds by 1,000"):
        read(SMALL + "1709251200000,acme,1,1\n")


def test_blanks_around_cells_and_empty_lines_do_not_matter() -> None:
    trace = read("run_at, tenant_id ,run_seconds,delay_tolerance_seconds\n\n 0 , acme, 1 ,1\n\n")

    assert trace.arrivals == [job(runs=1, tolerates=1)._replace(type="job")]


def test_jobs_that_take_no_time_need_one_slot() -> None:
    assert read(SMALL + "0,acme,0,0\n0,acme,0,0\n").capacity == 1
