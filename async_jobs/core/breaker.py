"""When a flow that fails is no longer leased, and how it comes back. Pure.

A breaker stands before each flow, the jobs of one type of one tenant (Nygard, "Release
It!", 2007):

    closed ──── half of 20 or more attempts failed within a minute ───► open
    open   ──── every 30 s one job goes as a probe ───────────────────► open
    open   ──── a probe ended well ───────────────────────────────────► closed
    open   ──── nobody had a job to probe with for ten minutes ───────► closed

A closed breaker without failures has no state. Workers count what ended and what failed;
the scheduler that has the turn decides, so replicas agree. A flow must have been watched
for a few seconds before it can be shut: by then every worker tells its successes too, and
one broken worker among ten cannot shut what works on the other nine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

WINDOW_SECONDS = 60.0
STEP_SECONDS = 10.0
LEAST_ENDED = 20
FAILING_SHARE = 0.5
LEAST_WATCHED_SECONDS = 3.0
PROBE_EVERY_SECONDS = 30.0
FORGET_SECONDS = 600.0


class Step(Enum):
    """What a scheduler does with a breaker in this pass."""

    STAY_CLOSED = auto()
    OPEN = auto()
    STAY_OPEN = auto()
    PROBE = auto()
    CLOSE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """What is known of a flow: counts of the window, and the open state if it is open.

    `open_seconds` is None while it is closed. `probed_seconds` is how long ago the last
    probe went, or the breaker opened.
    """

    ended: int = 0
    failed: int = 0
    watched_seconds: float = 0.0
    open_seconds: float | None = None
    probed_seconds: float = 0.0
    probe_succeeded: bool = False


def next_step(breaker: Breaker) -> Step:
    """What to do with the flow now."""
    if breaker.open_seconds is None:
        return Step.OPEN if _is_failing(breaker) else Step.STAY_CLOSED
    if breaker.probe_succeeded or breaker.probed_seconds >= FORGET_SECONDS:
        return Step.CLOSE
    return Step.PROBE if breaker.probed_seconds >= PROBE_EVERY_SECONDS else Step.STAY_OPEN


def seconds_to_probe(breaker: Breaker) -> float:
    """Until an open breaker may be probed again."""
    return max(0.0, PROBE_EVERY_SECONDS - breaker.probed_seconds)


def _is_failing(breaker: Breaker) -> bool:
    return (
        breaker.ended >= LEAST_ENDED
        and breaker.failed >= FAILING_SHARE * breaker.ended
        and breaker.watched_seconds >= LEAST_WATCHED_SECONDS
    )
