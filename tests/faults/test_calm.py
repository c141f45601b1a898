"""Without a fault nothing is found: what the other files find is the fault's doing."""

from __future__ import annotations

from .conftest import MakeRun


async def test_a_calm_run_is_clean(make_run: MakeRun) -> None:
    run = make_run()
    run.scheduler(), run.worker()
    await run.put(300)
    await run.put(30, fails=1)
    await run.drained()

    figures = run.verify()

    assert (figures["succeeded"], figures["runs"], figures["rescued"]) == (330, 360, 0)
    run.ends_well()
