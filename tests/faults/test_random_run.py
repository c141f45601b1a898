"""A small random run: 3,000 jobs, 12 faults. The large ones: `python -m tests.faults --help`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from .ground import LENGTH, SEED, Ground
from .random_run import Plan, make, problems


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_job_is_lost_whatever_breaks(ground: Ground, tmp_path: Path) -> None:
    plan = Plan(jobs=int(3_000 * LENGTH), faults=int(12 * LENGTH), seed=SEED, every_seconds=2.5)
    one = make(ground, tmp_path, plan, lambda what, done, of: None)
    try:
        summary = await one.go()
    finally:
        ground.heal()
        for process in one.run.processes:
            if process.is_running:
                process.send(signal.SIGCONT)
        one.run.close()

    broken = problems(summary)
    assert broken == [], f"FAULT_SEED={SEED}\n{json.dumps(summary, indent=1, default=str)}"
    assert summary["succeeded"] + summary["cancelled"] == summary["jobs"]


def calm_summary(**changes: Any) -> dict[str, Any]:
    calm = {"violations": {"I01": 0}, "resumed_p100_seconds": {"sqs": 1.0}, "tracebacks": 0}
    return {**calm, **changes}


@pytest.mark.parametrize(
    "change",
    [
        {"violations": {"I01": 1}},
        {"resumed_p100_seconds": {"postgres": 6.1}},
        {"tracebacks": 1},
    ],
)
def test_a_broken_promise_is_named(change: dict[str, Any]) -> None:
    assert problems(calm_summary()) == []
    assert len(problems(calm_summary(**change))) == 1
