"""The demo's traffic: which jobs arrive when, the same for the same seed. Pure.

    quiet tenants   a steady stream of labels, letters, digests and reminders, with
                    tolerances from seconds (a sign-in code) to hours (overnight labels)
    megashop        the noisy one: two bursts in which it sends and labels all it has
    twins           now and then a job arrives twice at once with one dedupe_key
    trouble         some recipients live where mail is refused, see `domains`

The demo sends it; nothing here reads a clock or knows of HTTP.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from async_jobs import NewJob
from examples.domains import CLOSED, FLAKY, FULL, GOOD
from examples.messages import MESSAGES

QUIET_TENANTS = ("bakery", "clinic", "cinema")
NOISY_TENANT = "megashop"
TENANTS = (*QUIET_TENANTS, NOISY_TENANT)

HOUR_SECONDS = 3600.0
BURST_SHARE = 0.4
TWIN_SHARE = 0.05
BURSTS_AT = (0.2, 0.6)
BURST_SECONDS = 0.5
BACKOFF: Mapping[str, object] = {
    "type": "exponential",
    "base_delay_seconds": 1,
    "max_delay_seconds": 3,
}

_NAMES = ("Ada", "Ben", "Chen", "Dora", "Emil", "Fatou", "Greta", "Hugo", "Ines", "Jonas")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job, and how many seconds after the beginning it arrives."""

    at_seconds: float
    job: NewJob


def traffic(jobs: int, seconds: float, *, began_at: datetime, seed: int) -> list[Arrival]:
    """Exactly *jobs* arrivals within *seconds*, in the order they come.

    *began_at* is where `run_at` and quiet hours count from.
    """
    author = _Author(random.Random(seed), began_at)
    twins = round(jobs * TWIN_SHARE)
    loud = round(jobs * BURST_SHARE)
    steady = [author.quiet_job(at) for at in author.moments(jobs - twins - loud, seconds)]
    bursts = [
        author.noisy_job(
            BURSTS_AT[number % len(BURSTS_AT)] * seconds, min(BURST_SECONDS, seconds / 10)
        )
        for number in range(loud)
    ]
    arrivals = [*steady, *bursts]
    arrivals += [author.twin(arrivals) for _ in range(twins)] if arrivals else []
    return sorted(arrivals, key=lambda arrival: arrival.at_seconds)


class _Author:
    """Makes jobs up, one after the other."""

    def __init__(self, chance: random.Random, began_at: datetime) -> None:
        self._chance = chance
        self._began_at = began_at
        self._numbers = iter(range(1, 1_000_000_000))
        self._quiet: tuple[Callable[[str, float], NewJob], ...] = (
            self._label,
            self._sign_in,
            self._order,
            self._triage,
            self._overnight,
            self._digest,
            self._reminder,
        )

    def moments(self, count: int, seconds: float) -> Iterator[float]:
        return (self._chance.uniform(0.0, seconds) for _ in range(count))

    def quiet_job(self, at_seconds: float) -> Arrival:
        (make,) = self._chance.choices(self._quiet, weights=(30, 20, 20, 15, 5, 5, 5))
        return Arrival(at_seconds, make(self._chance.choice(QUIET_TENANTS), at_seconds))

    def noisy_job(self, burst_at_seconds: float, lasts_seconds: float) -> Arrival:
        at_seconds = burst_at_seconds + self._chance.uniform(0.0, lasts_seconds)
        make = self._chance.choice((self._newsletter, self._overnight))
        return Arrival(at_seconds, make(NOISY_TENANT, at_seconds))

    def twin(self, arrivals: list[Arrival]) -> Arrival:
        """Give one of *arrivals* a dedupe_key, and return a second one that is just like it."""
        place = self._chance.randrange(len(arrivals))
        first = arrivals[place]
        key = first.job.dedupe_key or f"demo:{self._began_at:%H%M%S%f}:{next(self._numbers)}"
        arrivals[place] = replace(first, job=replace(first.job, dedupe_key=key))
        return arrivals[place]

    def _label(self, tenant_id: str, at_seconds: float) -> NewJob:
        return self._about_message(tenant_id, "label_message", tolerance_seconds=30)

    def _triage(self, tenant_id: str, at_seconds: float) -> NewJob:
        return self._about_message(tenant_id, "triage_message", tolerance_seconds=10)

    def _overnight(self, tenant_id: str, at_seconds: float) -> NewJob:
        return self._about_message(tenant_id, "label_message", tolerance_seconds=8 * HOUR_SECONDS)

    def _sign_in(self, tenant_id: str, at_seconds: float) -> NewJob:
        code = f"{self._chance.randrange(1_000_000):06}"
        return self._letter(tenant_id, "sign_in", {"code": code}, tolerance_seconds=3, priority=5)

    def _order(self, tenant_id: str, at_seconds: float) -> NewJob:
        values = {"order": str(self._chance.randrange(1000, 10_000))}
        return self._letter(tenant_id, "order", values, tolerance_seconds=60)

    def _newsletter(self, tenant_id: str, at_seconds: float) -> NewJob:
        values = {"quote": self._chance.choice(MESSAGES)}
        return self._letter(tenant_id, "newsletter", values, tolerance_seconds=2 * HOUR_SECONDS)

    def _digest(self, tenant_id: str, at_seconds: float) -> NewJob:
        payload = {"recipient": self._recipient(), "texts": self._chance.sample(MESSAGES, 12)}
        return _mail_job(tenant_id, "send_digest", payload, tolerance_seconds=600)

    def _reminder(self, tenant_id: str, at_seconds: float) -> NewJob:
        """Due a little later, and then it still has to wait for the end of the quiet hours."""
        run_at = self._began_at + timedelta(seconds=at_seconds + self._chance.uniform(0.5, 2.0))
        payload = {
            "recipient": self._recipient(),
            "name": self._chance.choice(_NAMES),
            "appointment": f"tomorrow at {self._chance.randrange(8, 18)}:00",
            "quiet_until": (run_at + timedelta(seconds=2)).isoformat(),
        }
        job = _mail_job(tenant_id, "send_reminder", payload, tolerance_seconds=60)
        return replace(job, run_at=run_at)

    def _letter(
        self,
        tenant_id: str,
        template: str,
        values: Mapping[str, str],
        *,
        tolerance_seconds: float,
        priority: int = 0,
    ) -> NewJob:
        recipient = self._recipient()
        named = {"name": self._chance.choice(_NAMES), **values}
        payload = {"recipient": recipient, "template": template, "values": named}
        job = _mail_job(
            tenant_id, "send_notification", payload, tolerance_seconds=tolerance_seconds
        )
        return replace(job, priority=priority)

    def _about_message(self, tenant_id: str, type: str, *, tolerance_seconds: float) -> NewJob:
        message_id = f"{tenant_id}-{self._began_at:%H%M%S%f}-{next(self._numbers)}"
        return NewJob(
            tenant_id=tenant_id,
            use_case="message_labeling",
            type=type,
            payload={"message_id": message_id, "text": self._chance.choice(MESSAGES)},
            delay_tolerance_seconds=tolerance_seconds,
            backoff_policy=BACKOFF,
        )

    def _recipient(self) -> str:
        """Nine in ten live where mail arrives."""
        domains = (*GOOD, FLAKY, FULL, CLOSED)
        (domain,) = self._chance.choices(domains, weights=(30, 30, 30, 5, 2, 3))
        return f"{self._chance.choice(_NAMES).lower()}{next(self._numbers)}@{domain}"


def _mail_job(
    tenant_id: str, type: str, payload: Mapping[str, Any], *, tolerance_seconds: float
) -> NewJob:
    return NewJob(
        tenant_id=tenant_id,
        use_case="notifications",
        type=type,
        payload=payload,
        delay_tolerance_seconds=tolerance_seconds,
        max_attempts=4,
        backoff_policy=BACKOFF,
    )
