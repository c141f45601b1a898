"""The SLO record in the text format that Prometheus reads, version 0.0.4. Pure.

One scrape of any API process tells of the whole system, because the figures come from the
database: no process has to be scraped on its own, and none is counted twice. Every figure is a
gauge, for sums over windows may fall.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from async_jobs.core.explain import GONE_AFTER_SECONDS
from async_jobs.core.overrides import ProcessSeen, alive
from async_jobs.core.slo_report import UseCaseSlo

Sample = tuple[Mapping[str, str], float]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _plain(figure: Callable[[UseCaseSlo], float]) -> Callable[[UseCaseSlo], Iterable[Sample]]:
    return lambda each: [({}, figure(each))]


def _promises(each: UseCaseSlo) -> Iterable[Sample]:
    for window, found in (("1h", each.last_hour), ("1d", each.last_day)):
        yield {"window": window, "kept": "yes"}, found.started - found.late
        yield {"window": window, "kept": "no"}, found.late


def _demand(each: UseCaseSlo) -> Iterable[Sample]:
    jobs = 0
    for step in each.demand:
        jobs += step.jobs
        yield {"slack_below_seconds": f"{step.until_seconds:g}"}, jobs


FIGURES: Mapping[str, tuple[str, Callable[[UseCaseSlo], Iterable[Sample]]]] = {
    "promises": ("First starts in the window, by whether they were in time.", _promises),
    "slo_target": ("The share of promises that is to be kept.", _plain(lambda s: s.target)),
    "error_budget_left": (
        "The part of the error budget of 30 days that is left; below 0: overspent.",
        _plain(lambda s: s.budget_left),
    ),
    "burn_rate": (
        "How many times faster than allowed promises are broken.",
        lambda s: [({"window": window}, rate) for window, rate in s.burn_rates.items()],
    ),
    "waiting_jobs": (
        "Waiting jobs with less time left than that; those below 0 are late.",
        _demand,
    ),
    "late_jobs": ("Waiting jobs past their deadline.", _plain(lambda s: s.late_now)),
    "oldest_late_seconds": (
        "How long the most urgent waiting job has been late; 0: none is.",
        _plain(lambda s: s.oldest_late_seconds),
    ),
    "oldest_due_seconds": (
        "How long the most urgent waiting job has been due; 0: none waits.",
        _plain(lambda s: s.oldest_due_seconds),
    ),
    "in_flight_jobs": ("Jobs that hold a lease.", _plain(lambda s: s.in_flight)),
    "capacity_jobs": ("The most jobs in flight, as in force.", _plain(lambda s: s.capacity)),
    "required_slots": (
        "Slots that start every waiting job in time: what to scale workers by.",
        _plain(lambda s: s.required_slots),
    ),
    "mean_run_seconds": (
        "How long an attempt runs on average; 0: nothing measured.",
        _plain(lambda s: s.mean_run_seconds or 0.0),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The whole system: its use cases, its processes, what it needs, and how its table is."""

    use_cases: Sequence[UseCaseSlo]
    processes: Sequence[ProcessSeen]
    workers_needed: int
    dead_rows: int


def _alive(found: Figures) -> Iterable[Sample]:
    return [({"role": role}, float(number)) for role, number in alive(found.processes).items()]


def _longest(name: str) -> Callable[[Figures], Iterable[Sample]]:
    """The largest of a figure that processes tell of themselves, by role."""

    def samples(found: Figures) -> Iterable[Sample]:
        longest: dict[str, float] = {}
        for one in found.processes:
            if one.seen_seconds < GONE_AFTER_SECONDS and name in one.serves:
                longest[one.role] = max(longest.get(one.role, 0.0), one.serves[name])
        return [({"role": role}, value) for role, value in longest.items()]

    return samples


def _requests(found: Figures) -> Iterable[Sample]:
    total: Counter[str] = Counter()
    for one in found.processes:
        if one.seen_seconds < GONE_AFTER_SECONDS:
            total.update(one.serves.get("sqs_requests", {}))
    return [({"operation": operation}, number) for operation, number in sorted(total.items())]


def _void(found: Figures) -> Iterable[Sample]:
    living = [one for one in found.processes if one.seen_seconds < GONE_AFTER_SECONDS]
    return [({}, sum(one.serves.get("void_tickets", 0) for one in living))]


OF_ALL: Mapping[str, tuple[str, Callable[[Figures], Iterable[Sample]]]] = {
    "processes": ("Schedulers and workers that are alive.", _alive),
    "workers_needed": (
        "Workers that keep every promise of the next ten minutes.",
        lambda found: [({}, found.workers_needed)],
    ),
    "dead_rows": (
        "Dead row versions of the table, as PostgreSQL estimates them.",
        lambda found: [({}, found.dead_rows)],
    ),
    "loop_lag_seconds": (
        "The longest that an event loop let a call wait in the last 20 s, by role.",
        _longest("lag_seconds"),
    ),
    "tick_seconds": (
        "The longest pass of a loop in the last 20 s, by role; a worker's has a long poll in it.",
        _longest("tick_seconds"),
    ),
    "sqs_requests": (
        "Requests to SQS by the processes that are alive, since each started.",
        _requests,
    ),
    "void_tickets": (
        "Tickets that opened nothing (delivered twice, lease taken back), counted likewise.",
        _void,
    ),
}


def exposition(found: Figures) -> str:
    """Everything in *found*, a family of samples for each name."""
    lines: list[str] = []
    for name, (meaning, samples) in FIGURES.items():
        labelled = (
            ({"use_case": each.use_case, **labels}, value)
            for each in found.use_cases
            for labels, value in samples(each)
        )
        lines += _family(name, meaning, labelled)
    for name, (meaning, samples_of_all) in OF_ALL.items():
        lines += _family(name, meaning, samples_of_all(found))
    return "\n".join(lines) + "\n"


def _family(name: str, meaning: str, samples: Iterable[Sample]) -> list[str]:
    full = f"async_jobs_{name}"
    return [
        f"# HELP {full} {meaning}",
        f"# TYPE {full} gauge",
        *(f"{full}{_labels(labels)} {value:.10g}" for labels, value in samples),
    ]


def _labels(labels: Mapping[str, str]) -> str:
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
