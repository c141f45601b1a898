"""What is shown when everything is up."""

from __future__ import annotations

from pathlib import Path

import pytest

from async_jobs.dev.banner import Places, banner
from async_jobs.dev.options import Options

PLACES = Places(
    api_url="http://127.0.0.1:58000",
    dsn="postgresql://postgres:0123456789abcdef@127.0.0.1:54321/postgres",
    queues="SQS at http://127.0.0.1:54321",
    data_dir=Path("/projects/shop/.async-jobs/postgres"),
    token_needed=False,
)


def options(**given: object) -> Options:
    return Options(data_dir=Path("data"), **given)  # type: ignore[arg-type] # passed through


@pytest.mark.parametrize(
    "chosen", [options(), options(demo=True), options(handlers="shop.job_handlers")]
)
def test_the_banner_fits_a_terminal_of_80_columns(chosen: Options) -> None:
    lines = banner(chosen, PLACES, seconds=2.0).splitlines()

    assert max(len(line) for line in lines) < 80


def test_the_banner_says_where_everything_is() -> None:
    text = banner(options(), PLACES, seconds=2.0)

    assert PLACES.api_url in text
    assert PLACES.dsn in text
    assert PLACES.queues in text
    assert str(PLACES.data_dir) in text


def test_the_connection_string_of_a_given_database_is_not_shown() -> None:
    text = banner(options(database_url=PLACES.dsn), PLACES, seconds=2.0)

    assert PLACES.dsn not in text
