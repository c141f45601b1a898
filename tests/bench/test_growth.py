"""The growth benchmark works: a tiny case of each kind, and the verdicts that come out of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.contestants import HERE, read
from bench.growth import CASES, Case, measure, run, summary
from bench.measures import Figures
from bench.servers import Servers, running

OURS = next(one for one in read(HERE) if one.name == "async-jobs-pg")
BASE = Case(name="few")
GROWN = Case(name="many", base="few", at_least=0.9)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running() as servers:
        yield servers


@pytest.mark.slow
def test_a_grown_table_is_drained_beside_what_has_grown(servers: Servers) -> None:
    case = Case(
        name="tiny",
        waiting=300,
        drained=200,
        finished=50,
        use_cases=3,
        tenants=7,
        snapshot_held=True,
    )

    figures = measure(OURS, servers, case)

    assert isinstance(figures["rate"], float)
    assert figures["rate"] > 0


@pytest.mark.parametrize(("rate", "verdict"), [(900.0, "met"), (899.0, "missed")])
def test_a_case_is_compared_with_its_base(rate: float, verdict: str) -> None:
    rows = summary([BASE, GROWN], [_line("few", 1_000.0), _line("many", rate)]).rows

    assert rows[0][-1] == ""
    assert rows[1][-1] == verdict


def test_every_base_is_a_case_itself() -> None:
    names = {case.name for case in CASES}

    assert {case.base for case in CASES if case.base} <= names


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(SystemExit, match="There are 20,000 waiting"):
        run(["no such"], rounds=1, large=False)


def _line(case: str, rate: float) -> Figures:
    return {"case": case, "rate": rate, "postgres_us": 1.0, "worker_us": 1.0}
