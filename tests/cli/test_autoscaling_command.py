"""`async-jobs autoscaling`: a line for all, a line for each use case, or JSON."""

from __future__ import annotations

import json

from command_line import run


def test_the_first_line_is_for_all_use_cases(emptied_database: str) -> None:
    env = {"ASYNC_JOBS_DB_DSN": emptied_database}
    ended = run("autoscaling", env=env, patience_seconds=20)

    assert ended.code == 0, ended.said
    assert ended.lines[0] == "workers=0 slots=0 of=10"
    assert ended.lines[1] == (
        "use_case=notifications workers=0 slots=0 wanted=0 in_flight=0 capacity=10"
    )


def test_json_is_what_the_api_answers(emptied_database: str) -> None:
    env = {"ASYNC_JOBS_DB_DSN": emptied_database}
    words = ("autoscaling", "notifications", "--json", "--slots", "5", "--lead", "0.5")
    ended = run(*words, env=env, patience_seconds=20)

    told = json.loads(ended.said)
    assert (told["workers"], told["slots_per_worker"], told["lead_seconds"]) == (0, 5, 0.5)
