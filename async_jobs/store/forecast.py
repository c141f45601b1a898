"""Reads what a use case has to do, for forecasts: one statement, bounded whatever the backlog."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from async_jobs.core.forecast import Demand, Finished
from async_jobs.store.door import Door
from async_jobs.store.queries import query

_READ_DEMAND = query("read_demand", "forecast")
MOST_WAITING = 5_000
MOST_NEWEST = 500
MOST_FINISHED = 200


async def read_demand(door: Door, use_case: str, *, now: datetime | None) -> Demand:
    """The demand of *use_case* as it is now."""
    params = {
        "use_case": use_case,
        "now": now,
        "most": MOST_WAITING,
        "newest": MOST_NEWEST,
        "finished": MOST_FINISHED,
    }
    [row] = await door.rows(_READ_DEMAND, params, dict_row, prepare=False)
    return _demand(row)


def _demand(row: dict[str, Any]) -> Demand:
    waiting = row.pop("waiting") or 0
    places = [*row.pop("places")]
    marks = row.pop("marks")
    return Demand(
        marks=marks,
        places=places,
        cut=waiting >= MOST_WAITING,
        scheduled=[(run_in, slack) for run_in, slack in row.pop("scheduled")],
        finished=[
            Finished(due_ago=due, started_ago=started, finished_ago=ended)
            for due, started, ended in row.pop("finished")
        ],
        **row,
    )
