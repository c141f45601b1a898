"""The benchmark works: a tiny run of our own contestant, and the tables that come out of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench import api
from bench.contestants import HERE, read
from bench.machine import facts
from bench.measures import Figures, Sizes, drain, enqueue, percentile
from bench.page import page
from bench.servers import Servers, running
from bench.stand import Stand
from bench.table import Line, markdown, show, tables

TINY = Sizes(jobs=50, drain_seconds=30.0)
GUARDED = Sizes(jobs=1_000, drain_seconds=60.0)
CONTESTANTS = {one.name: one for one in read(HERE)}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running() as servers:
        yield servers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["async-jobs-pg", "async-jobs-sqs"])
def test_a_drain_costs_no_more_than_it_did(name: str, servers: Servers) -> None:
    """A slow machine looks more often while it works: 0.07 statements a job were measured over
    PostgreSQL, 0.5 over SQS and 0.26 requests; 1,380 to 1,550 bytes of WAL and 27 to 31 buffers.
    """
    (figures,) = drain(CONTESTANTS[name], servers, GUARDED)

    assert figures["jobs"] == 1_000
    assert figures["repeated"] == 0
    assert _number(figures, "rate") > 0
    by_sqs = name == "async-jobs-sqs"
    assert 0.0 < _number(figures, "statements") <= (1.5 if by_sqs else 0.4)
    assert 0.0 < _number(figures, "wal_bytes") <= 1_800
    assert 0.0 < _number(figures, "buffers") <= 50
    assert (_number(figures, "sqs_requests") > 0.0) == by_sqs
    assert _number(figures, "sqs_requests") <= 0.8


@pytest.mark.slow
def test_every_way_to_enqueue_is_measured(servers: Servers) -> None:
    found = list(enqueue(CONTESTANTS["async-jobs-pg"], servers, TINY))

    assert [figures["case"] for figures in found] == ["1 client", "8 clients", "bulk"]
    assert all(_number(figures, "rate") > 0 for figures in found)


@pytest.mark.slow
def test_the_api_is_asked_and_what_it_answers_is_counted(servers: Servers) -> None:
    case = api.Case("two jobs", 2, 20, 2)
    with Stand(CONTESTANTS["async-jobs-pg"], servers) as stand:
        (found,) = api.measure(api.OURS, stand, servers, [case])

        assert found.per_core > 0
        assert found.statements >= 0.5
        assert stand.left() == 2 * (20 + api.WARM_UP)


@pytest.mark.parametrize(("per_core", "verdict"), [(1_500.0, "met"), (1_499.0, "missed")])
def test_a_core_is_to_answer_enough_requests(per_core: float, verdict: str) -> None:
    case = api.Case("one job", 16, 100)
    table = api.summary(
        [
            api.Measured(name, case, rate, 1.0, 1.0, 1.0, 1.0, 1.0)
            for name, rate in ((api.OURS, per_core), (api.BARE, 3_000.0))
        ]
    )

    assert [row[-1] for row in table.rows] == [verdict, ""]
    assert table.rows[0][4] == "0.50"


def test_the_facts_of_a_run_name_durable_settings(servers: Servers) -> None:
    told = facts(servers, CONTESTANTS.values(), TINY)

    assert "fsync = on, synchronous_commit = on, full_page_writes = on" in told["PostgreSQL"]
    assert told["contestants"] == "async-jobs-pg, async-jobs-sqs"


def test_a_cell_shows_the_median_and_the_spread_of_the_rounds() -> None:
    table, _ = tables([_drained(4_000.0), _drained(1_000.0), _drained(3_000.0)])

    assert table.rows == [["1 worker", "async-jobs-pg", "3,000 (1,000..4,000)"]]


@pytest.mark.parametrize(("rate", "verdict"), [(3_000.0, "met"), (2_999.0, "missed")])
def test_a_target_is_met_from_its_bound_on(rate: float, verdict: str) -> None:
    _, targets = tables([_drained(rate)])

    assert targets.rows == [["async-jobs-pg", "≥ 3,000 jobs/s drained", f"{rate:,.0f}", verdict]]


def test_tables_are_markdown_in_a_pipe() -> None:
    printed = io.StringIO()
    table, _ = tables([_drained(3_000.0)])
    show(table, Console(file=printed, force_terminal=False))

    assert printed.getvalue().strip() == markdown(table).strip()
    assert "| 1 worker | async-jobs-pg | 3,000 |" in printed.getvalue()


def test_the_page_holds_facts_and_tables() -> None:
    text = page({"machine": "2 cores"}, [_drained(3_000.0)])

    assert "| machine | 2 cores |" in text
    assert "## Drain" in text


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 3.0
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([], 0.5) == 0.0


def test_a_folder_without_contestants_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"contestants\.toml is missing"):
        read(tmp_path)


def test_a_contestant_with_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "contestants.toml").write_text('[x]\nadapter = "x.py"\nspeed = 1\n', "utf-8")

    with pytest.raises(SystemExit, match="speed"):
        read(tmp_path)


def _number(figures: Figures, name: str) -> float:
    value = figures[name]
    assert isinstance(value, int | float)
    return value


def _drained(rate: float) -> Line:
    contestant = {"contestant": "async-jobs-pg", "measure": "drain", "case": "1 worker"}
    return {**contestant, "rate": rate}
