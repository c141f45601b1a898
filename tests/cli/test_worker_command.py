"""`async-jobs-worker` as a newcomer meets it: what is missing is said, with the remedy."""

from __future__ import annotations

import signal

import pytest
from command_line import UNREACHABLE, read_until, rest, run, start

HANDLERS = {"ASYNC_JOBS_HANDLERS_MODULE": "flow_handlers"}
SETTINGS = {"ASYNC_JOBS_DB_DSN": UNREACHABLE, **HANDLERS}


def test_without_a_dsn_it_says_which_variable_to_set() -> None:
    ended = run("worker", env=HANDLERS)

    assert ended.code == 2
    assert ended.lines[0] == "error: The configuration cannot be used:"
    assert ended.lines[1].startswith("  - ASYNC_JOBS_DB_DSN: is not set; set it to")
    assert len(ended.lines) == 2


def test_a_database_that_cannot_be_reached_is_said_after_a_while_and_without_the_password() -> None:
    ended = run("worker", env=SETTINGS)

    assert ended.code == 1
    assert ended.lines[-1].startswith("error: No connection to PostgreSQL within 0.2 s. Check")
    assert "ASYNC_JOBS_DB_DSN" in ended.lines[-1]
    assert "sesame" not in ended.said
    assert "Traceback" not in ended.said


@pytest.mark.parametrize("queue", ["${QUEUE_URL}", "${QUEUE_URL:-x}", "", "  "])
def test_a_queue_that_no_shell_filled_in_is_refused_with_the_remedy(queue: str) -> None:
    ended = run("worker", "--queue", queue, env=SETTINGS)

    assert ended.code == 2
    assert ended.lines[1].startswith("  - --queue: ")
    assert "QUEUE_URL" in ended.lines[1]


def test_an_unfilled_queue_variable_is_refused_too() -> None:
    ended = run("worker", env={"QUEUE_URL": "${QUEUE_URL}", **SETTINGS})

    assert ended.code == 2
    assert "QUEUE_URL" in ended.lines[1]


def test_without_a_handlers_module_it_says_where_to_name_one() -> None:
    ended = run("worker", env={"ASYNC_JOBS_DB_DSN": UNREACHABLE})

    assert ended.code == 2
    assert "ASYNC_JOBS_HANDLERS_MODULE: is not set" in ended.lines[1]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("nobody.has_this", "error: There is no module nobody to import handlers from."),
        ("handlers.py", "error: There is no module handlers to import handlers from."),
        ("path/to/handlers", "error: The handlers module is not a dotted module name."),
        ("json", "error: The module json registers no handler."),
    ],
)
def test_a_handlers_module_of_no_use_is_said_in_one_line(module: str, said: str) -> None:
    ended = run("worker", "--handlers", module, env={"ASYNC_JOBS_DB_DSN": UNREACHABLE})

    assert ended.code == 1
    assert ended.said.startswith(said)
    assert len(ended.lines) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--log-level", "chatty"), "--log-level: holds what cannot be used; set it to one of"),
        (("--concurrency", "99999"), "--concurrency: holds what cannot be used; set it to a whole"),
        (("--concurrency", "0"), "'--concurrency'"),
        (("--concurrency", "ten"), "'--concurrency'"),
        (("--queues", "x"), "--queues"),
    ],
)
def test_an_option_of_no_use_is_named(words: tuple[str, ...], said: str) -> None:
    ended = run("worker", *words, env=SETTINGS)

    assert ended.code == 2
    assert said in ended.said
    assert "Traceback" not in ended.said


def test_an_outdated_schema_is_said_with_the_remedy(empty_database: str) -> None:
    ended = run(
        "worker", patience_seconds=30, env={"ASYNC_JOBS_DB_DSN": empty_database, **HANDLERS}
    )

    assert ended.code == 1
    assert "--init-db" in ended.lines[-1]


def test_it_creates_the_schema_when_told_and_stops_politely(empty_database: str) -> None:
    process = start("worker", "--init-db", env={"ASYNC_JOBS_DB_DSN": empty_database, **HANDLERS})
    ready = read_until(process, "ready")
    process.send_signal(signal.SIGTERM)
    ended = rest(process)

    assert "flaky" in ready
    assert ended.code == 0
    assert ended.lines[-1].endswith("stopped")


@pytest.mark.parametrize("queue", ["my-queue", "orders.fifo"])
def test_a_queue_is_taken_by_its_very_name(database: str, queue: str) -> None:
    process = start("worker", "--queue", queue, env={"ASYNC_JOBS_DB_DSN": database, **HANDLERS})
    read_until(process, "ready")
    process.send_signal(signal.SIGINT)

    assert rest(process).code == 0
