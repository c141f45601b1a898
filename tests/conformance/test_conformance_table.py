"""The reference page, the checks and the list of deviations say the same."""

from __future__ import annotations

from pathlib import Path

from conformance_table import checks, deviations, document

from async_jobs.embedded.sqs import Fault, Kind

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "sqs-server.md"


def test_the_table_of_the_reference_page_is_fresh() -> None:
    text = PAGE.read_text("utf-8")

    assert text == document(text), "run scripts/sqs-conformance --table"


def test_every_check_names_the_aws_page_it_rests_on() -> None:
    assert [
        check.name
        for check in checks()
        if not check.page.endswith(("(API Reference)", "(Developer Guide)"))
    ] == []


def test_every_listed_deviation_is_one_of_a_check() -> None:
    known = {check.name for check in checks()}
    listed = {name.partition("[")[0] for found in deviations().values() for name in found}

    assert listed - known == set()


def test_every_fault_and_every_argument_is_documented() -> None:
    text = PAGE.read_text("utf-8")
    names = [*Kind, *(name for name in Fault.__dataclass_fields__ if name != "kind")]

    assert [name for name in names if f"`{name}`" not in text] == []
