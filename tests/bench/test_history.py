"""The benchmark beside finished jobs works, and its verdict follows the ratio."""

from __future__ import annotations

import pytest

from bench.history import MOVES, WARM_UP, run, summary


@pytest.mark.slow
def test_a_small_history_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    run(300, jobs=5)

    told = capsys.readouterr().out
    assert "An empty table against 300 finished jobs" in told
    assert all(f"| {move} |" in told for move in MOVES)


@pytest.mark.parametrize(("took", "verdict"), [(1.5, "met"), (1.6, "missed")])
def test_a_move_may_take_half_as_long_again(took: float, verdict: str) -> None:
    def figures(milliseconds: float) -> dict[str, list[float]]:
        return {move: [9.0] * WARM_UP + [milliseconds] * 10 for move in MOVES}

    rows = summary(figures(1.0), figures(took), 300).rows

    assert [row[-1] for row in rows] == [verdict] * len(MOVES)
