"""The statements and the model agree on every walk, and disagree when a bug is planted.

WALKS=2000 makes the walks many; CI makes some.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from psycopg.errors import IntegrityError
from psycopg_pool import AsyncConnectionPool

from .planted_bugs import WALK_BUGS, Bug, bug_id, planted
from .walk_on import WholeMachine

WALKS = int(os.environ.get("WALKS", "100"))
WALKS_FOR_A_BUG = 2000
STEPS = 30


@contextmanager
def walks(database: str) -> Iterator[type[WholeMachine]]:
    """The machine, on a connection of its own."""
    with asyncio.Runner() as runner:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            database, min_size=1, max_size=1, open=False, kwargs={"autocommit": True}
        )
        runner.run(pool.open(wait=True))
        try:
            yield type("Walk", (WholeMachine,), {"runner": runner, "pool": pool})
        finally:
            runner.run(pool.close())


def walk(machine: type[WholeMachine], **more: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(600 + 3 * WALKS)  # a failing walk takes minutes to shrink, and is worth them
def test_the_statements_and_the_model_agree_on_every_walk(database: str) -> None:
    with walks(database) as machine:
        walk(machine, max_examples=WALKS)


@pytest.mark.slow
@pytest.mark.parametrize("bug", WALK_BUGS, ids=bug_id)
def test_a_planted_bug_is_found_by_a_walk(
    database: str, bug: Bug, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        planted(bug, monkeypatch, database),
        walks(database) as machine,
        pytest.raises((AssertionError, IntegrityError)),
    ):
        walk(
            machine,
            max_examples=WALKS_FOR_A_BUG,
            phases=[Phase.generate],
            database=None,
            derandomize=True,
        )
