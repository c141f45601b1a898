"""One record is one line, whatever is in it, and lines of a handler say for which job."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.handlers
import queue
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moving_parts import started_job

from async_jobs.telemetry.events import JobBuried, LoopFailed, SendFailed
from async_jobs.telemetry.logs import (
    MOST_OF_MESSAGE,
    JobFields,
    JsonFormatter,
    TextFormatter,
    current_job,
    log_event,
)

JOB = started_job(attempts=2)
FIELDS = {
    "job_id": str(JOB.id),
    "tenant_id": "acme",
    "use_case": "mail",
    "type": "send",
    "attempt": 2,
}
BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
SEQUENCES = ["\x1b[2J", "\x1b]0;title\x07", "\x1b[31mred", "\x9b1A", "\x1b(0", "\x08" * 9, "\x00"]
UNSEEN = ["\u202e", "\u2066", "\ufeff", "\x7f", "\ud800", "\U000e0041", "\u200b", "\u00ad"]


def control_strings() -> list[str]:
    """Every control character by itself, then mixtures that pretend to be a line of their own."""
    chance = random.Random(6)
    pieces = [*BREAKS, *SEQUENCES, *UNSEEN]
    alone = [f"a{chr(code)}b" for code in (*range(32), *range(127, 160))]
    mixed = [
        "".join(chance.choices(pieces, k=4)) + "12:00:00.000 ERROR   job gone"
        for _ in range(200 - len(alone) - len(pieces))
    ]
    return [*alone, *pieces, *mixed]


class Written:
    """A log, and what was written to it."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(formatter)
        self.handler.addFilter(JobFields())

    def take(self) -> str:
        text = self._stream.getvalue()
        self._stream.seek(0)
        self._stream.truncate()
        return text


@pytest.fixture(params=[TextFormatter, JsonFormatter], ids=["text", "json"])
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    written = Written(request.param())
    yield from _listening(written)


@pytest.fixture
def written_json() -> Iterator[Written]:
    yield from _listening(Written(JsonFormatter()))


def _listening(written: Written) -> Iterator[Written]:
    root = logging.getLogger()
    root.addHandler(written.handler)
    yield written
    root.removeHandler(written.handler)


def as_message(foreign: str) -> None:
    logging.getLogger(__name__).warning("got %s", foreign)


def as_format(foreign: str) -> None:
    logging.getLogger(__name__).warning(foreign)


def as_logger_and_level(foreign: str) -> None:
    record = logging.LogRecord(foreign, logging.ERROR, "", 0, "hello", None, None)
    record.levelname = foreign
    logging.getLogger().handle(record)


def as_exception(foreign: str) -> None:
    try:
        raise ValueError(foreign)
    except ValueError:
        logging.getLogger(__name__).exception("failed")


def as_error_of_a_job(foreign: str) -> None:
    log_event(
        JobBuried(
            job_id=JOB.id,
            tenant_id=foreign,
            use_case="mail",
            type=foreign,
            queue=foreign,
            ran_seconds=0.1,
            error={"type": foreign, "message": foreign},
        )
    )


def as_reason_of_a_queue(foreign: str) -> None:
    log_event(SendFailed(queue="mail", messages=1, reason=foreign))


def as_failure_of_a_loop(foreign: str) -> None:
    log_event(
        LoopFailed(loop="intake", error=RuntimeError(foreign), failures=1, retry_in_seconds=1)
    )


@pytest.mark.parametrize(
    "log",
    [
        as_message,
        as_format,
        as_logger_and_level,
        as_exception,
        as_error_of_a_job,
        as_reason_of_a_queue,
        as_failure_of_a_loop,
    ],
)
def test_foreign_text_is_one_line_that_no_terminal_obeys(
    written: Written, log: Callable[[str], None]
) -> None:
    strings = control_strings()
    assert len(strings) == 200

    for foreign in strings:
        log(foreign)
        text = written.take()

        assert text.endswith("\n")
        assert text[:-1].isprintable(), foreign.encode("unicode_escape")
        assert len(text.splitlines()) == 1


def test_what_is_not_text_is_still_a_line(written: Written) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    alone = logging.Logger("alone")  # pytest's own listener takes no wrong records
    alone.addHandler(written.handler)
    alone.warning("wrong %d", "no number")
    alone.warning("broken %s", Broken())
    alone.warning(Broken())

    lines = written.take().splitlines()
    assert len(lines) == 3
    assert "wrong %d (TypeError in its arguments)" in lines[0]
    assert "broken %s (RuntimeError in its arguments)" in lines[1]


def test_long_text_is_capped(written: Written) -> None:
    as_message("x" * 1_000_000)
    as_exception("y" * 1_000_000)
    as_error_of_a_job("z" * 1_000_000)

    assert [len(line) < 16_000 for line in written.take().splitlines()] == [True] * 3


def test_a_traceback_is_on_the_line_of_its_message(written: Written) -> None:
    as_exception("boom")

    [line] = written.take().splitlines()
    assert "failed" in line
    assert "Traceback (most recent call last)" in line
    assert "ValueError: boom" in line


def test_json_holds_what_was_logged_unchanged(written_json: Written) -> None:
    as_message("\x1b[31mr\u00e9d\u2028\U000e0041")

    assert json.loads(written_json.take())["message"] == "got \x1b[31mr\u00e9d\u2028\U000e0041"


def test_every_record_carries_its_job_in_threads_and_tasks_of_the_handler(
    written_json: Written,
) -> None:
    async def handler() -> None:
        current_job.set(JOB)
        await asyncio.to_thread(as_message, "in a thread")
        await asyncio.create_task(_soon("in a task"))

    asyncio.run(handler())
    as_message("outside")

    *inside, outside = map(json.loads, written_json.take().splitlines())
    assert [line.items() >= FIELDS.items() for line in inside] == [True, True]
    assert "job_id" not in outside


def test_the_job_stays_on_a_record_that_another_thread_formats() -> None:
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    handler.addFilter(JobFields())
    logging.getLogger().addHandler(handler)
    token = current_job.set(JOB)
    try:
        as_message("now")
    finally:
        current_job.reset(token)
        logging.getLogger().removeHandler(handler)

    assert json.loads(JsonFormatter().format(records.get()))["job_id"] == str(JOB.id)


def test_a_fact_of_an_event_is_a_number_where_it_is_one(written_json: Written) -> None:
    as_failure_of_a_loop("x" * (2 * MOST_OF_MESSAGE))

    line = json.loads(written_json.take())
    assert (line["failures"], line["retry_in_seconds"], line["event"]) == (1, 1, "LoopFailed")
    assert len(line["error"]) <= MOST_OF_MESSAGE


async def _soon(text: str) -> None:
    await asyncio.sleep(0)
    as_message(text)
