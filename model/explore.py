"""Tries every order of moves, breadth first, and finds the shortest way to each broken property."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from model.lease import Bounds, Design, Job, steps
from model.properties import broken_by

_OPERATORS = ("cancel", "requeue")
_Way = tuple[Job, str]


@dataclass
class Found:
    """What an exploration saw: how much, and the shortest trace to each broken property."""

    states: int = 0
    steps: int = 0
    broken: dict[str, list[str]] = field(default_factory=dict)


def explore(design: Design, bounds: Bounds | None = None, *, until: str | None = None) -> Found:
    """Every state that can be reached; a step that breaks a property is not followed.

    Ends early when the property *until* is broken.
    """
    bounds = bounds or Bounds()
    found = Found()
    begin = Job()
    came_from: dict[Job, _Way | None] = {begin: None}
    leads_to: defaultdict[Job, list[Job]] = defaultdict(list)
    waiting = deque([begin])
    while waiting and until not in found.broken:
        job = waiting.popleft()
        for step in steps(job, design, bounds):
            found.steps += 1
            name = f"{step.move} {step.lease_seq}" if step.lease_seq else step.move
            if broken := list(broken_by(job, step)):
                for one in broken:
                    found.broken.setdefault(one, [*_trace(job, came_from), name])
                continue
            if step.move not in _OPERATORS:
                leads_to[step.job].append(job)
            if step.job not in came_from:
                came_from[step.job] = (job, name)
                waiting.append(step.job)
    found.states = len(came_from)
    if until not in found.broken and (stuck := _stuck(came_from, leads_to, bounds)):
        found.broken.setdefault("it always can go on", _trace(stuck, came_from))
    return found


def reachable(design: Design, bounds: Bounds) -> set[Job]:
    """Every state of *design*."""
    known = {Job()}
    waiting = deque(known)
    while waiting:
        for step in steps(waiting.popleft(), design, bounds):
            if step.job not in known:
                known.add(step.job)
                waiting.append(step.job)
    return known


def _stuck(
    came_from: dict[Job, _Way | None], leads_to: dict[Job, list[Job]], bounds: Bounds
) -> Job | None:
    """The first state from which no way leads to an end. Where the bounds end, so do we."""
    ends = [job for job in came_from if job.finished or job.highest >= bounds.leases]
    can_end = set(ends)
    waiting = deque(ends)
    while waiting:
        for before in leads_to[waiting.popleft()]:
            if before not in can_end:
                can_end.add(before)
                waiting.append(before)
    return next((job for job in came_from if job not in can_end), None)


def _trace(job: Job, came_from: dict[Job, _Way | None]) -> list[str]:
    trace: list[str] = []
    way = came_from[job]
    while way is not None:
        job, name = way
        trace.append(name)
        way = came_from[job]
    return trace[::-1]
