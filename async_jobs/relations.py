"""How settings relate: what no single setting can be checked for.

`config` walks `RELATIONS` after every setting was checked alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from async_jobs import failpoints
from async_jobs.settings import is_loopback

if TYPE_CHECKING:
    from async_jobs.config import AsyncJobsConfig

PREFIX = "ASYNC_JOBS_"


def _heartbeat_problems(config: AsyncJobsConfig) -> Iterator[str]:
    if config.lease_duration_seconds < 2 * config.heartbeat_interval_seconds:
        yield (
            f"{PREFIX}HEARTBEAT_INTERVAL_SECONDS: one missed heartbeat would lose the lease; set "
            f"it to at most half of {PREFIX}LEASE_DURATION_SECONDS, or unset it"
        )


def _plain_http_problems(config: AsyncJobsConfig) -> Iterator[str]:
    for use_case in config.use_cases.values():
        url = urlsplit(use_case.sqs_queue_url or "")
        if url.scheme == "http" and not config.sqs_endpoint_url and not is_loopback(url.hostname):
            yield (
                f"{PREFIX}SQS_QUEUE_{use_case.name.upper()}: http would carry jobs unprotected; "
                "use https, or set AWS_ENDPOINT_URL_SQS when SQS is served by a server of your own"
            )


def _queue_name_problems(config: AsyncJobsConfig) -> Iterator[str]:
    for name, sharing in config.queues().items():
        if len({use_case.sqs_queue_url for use_case in sharing}) > 1:
            variables = [f"{PREFIX}SQS_QUEUE_{use_case.name.upper()}" for use_case in sharing]
            yield (
                f"{', '.join(variables)}: two different queues have the name {name!r}; set the "
                "same URL for all of them, or use queues with different names"
            )


def _late_problems(config: AsyncJobsConfig) -> Iterator[str]:
    for use_case in config.use_cases.values():
        if use_case.on_late != "run" and not use_case.default_delay_tolerance_seconds:
            name = f"{PREFIX}{use_case.name.upper()}"
            yield (
                f"{name}_ON_LATE: with a default tolerance of 0 s no job could start in time, so "
                f"none would run; set {name}_DEFAULT_DELAY_TOLERANCE_SECONDS above 0"
            )


def _failpoint_problems(config: AsyncJobsConfig) -> Iterator[str]:
    if config.failpoints is None:
        return
    name = f"{PREFIX}FAILPOINTS"
    if config.testing != "on":
        yield (
            f"{name}: is for tests alone, because it makes this process die or stand still; unset "
            f"it, or set {PREFIX}TESTING=on if nothing real depends on this process"
        )
    try:
        failpoints.read(config.failpoints)
    except ValueError as error:
        yield f"{name}: {error}; set it to scheduler.after_lease=kill, for example, or unset it"


# A relation is checked when none of the settings it reads has a problem of its own.
RELATIONS: tuple[tuple[Set[str], Callable[[AsyncJobsConfig], Iterator[str]]], ...] = (
    ({"lease_duration_seconds", "heartbeat_interval_seconds"}, _heartbeat_problems),
    ({"sqs_endpoint_url"}, _plain_http_problems),
    (frozenset[str](), _queue_name_problems),
    (frozenset[str](), _late_problems),
    ({"testing", "failpoints"}, _failpoint_problems),
)
