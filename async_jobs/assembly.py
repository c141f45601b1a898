"""The only place that builds objects from a configuration.

Commands and tests call these; nothing below this file knows the configuration
as a whole. SQS is imported only where a use case has an SQS queue, the scheduler only
where one is built, and so the worker.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from async_jobs.config import AsyncJobsConfig, UseCaseConfig
from async_jobs.core.lateness import LatenessPolicy
from async_jobs.core.overrides import Override
from async_jobs.core.slo import SloRecord
from async_jobs.errors import ConfigError
from async_jobs.models import LateRetry, OnLate
from async_jobs.registry import JobRegistry
from async_jobs.runtime.health import Health
from async_jobs.runtime.loop import Loop
from async_jobs.runtime.presence import Presence
from async_jobs.runtime.slo_writer import SloWriter
from async_jobs.store.hints import OVERRIDES_CHANGED, HintListener
from async_jobs.store.jobs import JobStore
from async_jobs.store.pace import PacedConnection
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.slo import SloListener
from async_jobs.transport.claimer import Claimer
from async_jobs.transport.ports import Receiver, Sender
from async_jobs.transport.postgres import PostgresReceiver, PostgresSender

if TYPE_CHECKING:
    from async_jobs.scheduler.loop import Scheduler
    from async_jobs.transport.sqs import SqsClient
    from async_jobs.worker.worker import Worker

Pool = AsyncConnectionPool[Any]
Vitals = Callable[[], Mapping[str, object]]

RECONNECT_SECONDS = 3.0
"""After so long the pool begins anew: its backoff would double for minutes, beyond the outage."""

_UNREADABLE_DSN = (
    "ASYNC_JOBS_DB_DSN: cannot be read as a connection string; in a URL write the special "
    "characters of a password as %25 (%), %2F (/), %3A (:), %40 (@), %23 (#), %3F (?)"
)


def create_pool(
    config: AsyncJobsConfig, *, application_name: str = "async-jobs", max_size: int | None = None
) -> Pool:
    """A connection pool for *config*, not yet open: `async with pool:` opens and closes it.

    Raises ConfigError for a connection string that the driver cannot read.
    """
    _check_dsn(config.db_dsn)
    return AsyncConnectionPool(
        config.db_dsn,
        min_size=1,
        max_size=max_size or config.db_pool_max_size,
        open=False,
        reconnect_timeout=RECONNECT_SECONDS,
        # Looks for a connection again, for those who wait.
        reconnect_failed=Pool.check,
        connection_class=PacedConnection,
        kwargs={
            "autocommit": True,
            "application_name": application_name,
            "connect_timeout": 5,
            "prepare_threshold": config.prepare_threshold,
        },
    )


def _check_dsn(dsn: str) -> None:
    """Raise ConfigError in place of the driver's errors, which repeat parts of a password."""
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except ProgrammingError:
        found = {"host": "@"}
    if "@" in found.get("host", "") or not re.fullmatch(r"[\d,]*", found.get("port", ""), re.ASCII):
        raise ConfigError([_UNREADABLE_DSN])


def process_name(role: str) -> str:
    """A name that no other process ever has: a restarted one must not look like its predecessor."""
    return f"{role}:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class SqsClients:
    """Makes one SQS client per endpoint, when first asked, and closes them all."""

    made: dict[str, SqsClient]
    bus: Bus = field(default_factory=Bus)

    def client_for(self, queue_url: str, *, long_poll_seconds: float = 20.0) -> SqsClient:
        from async_jobs.transport.sqs import SqsClient

        place = queue_url.rpartition("/")[0]
        if place not in self.made:
            self.made[place] = SqsClient(
                queue_url, long_poll_seconds=long_poll_seconds, bus=self.bus
            )
        return self.made[place]

    def counts(self) -> dict[str, object]:
        """Requests by operation and tickets that opened nothing, since the process started."""
        requests = sum((client.requests for client in self.made.values()), Counter())
        void = sum(client.void_tickets for client in self.made.values())
        return {"sqs_requests": dict(requests), "void_tickets": void} if self.made else {}

    def close(self) -> None:
        for client in self.made.values():
            client.close()


def build_scheduler(
    config: AsyncJobsConfig, store: JobStore, clients: SqsClients, *, bus: Bus
) -> Scheduler:
    """A scheduler for every configured use case."""
    from async_jobs.scheduler.dispatch import Dispatcher
    from async_jobs.scheduler.loop import Scheduler

    dispatchers = [
        Dispatcher(
            store,
            _sender(use_case, clients),
            use_case,
            quotas=config.per_tenant_quotas,
            dispatch_lease_seconds=config.dispatch_lease_seconds,
            bus=bus,
        )
        for use_case in config.use_cases.values()
    ]
    return Scheduler(
        store,
        dispatchers,
        interval_seconds=config.scheduler_interval_seconds,
        retention_seconds=config.retention_seconds,
        bus=bus,
    )


def build_worker(
    name: str,
    config: AsyncJobsConfig,
    store: JobStore,
    registry: JobRegistry,
    receivers: Sequence[Receiver],
    *,
    bus: Bus,
) -> Worker:
    """A worker that takes jobs from *receivers*."""
    from async_jobs.service import JobService
    from async_jobs.store.lease_keeper import LeaseKeeper
    from async_jobs.worker.worker import Worker

    return Worker(
        name,
        store,
        LeaseKeeper(
            config.db_dsn,
            application_name=name,
            timeout_seconds=_heartbeat_timeout(config.lease_duration_seconds),
            prepare_threshold=config.prepare_threshold,
        ),
        receivers,
        registry,
        concurrency=config.worker_concurrency,
        lease_seconds=config.lease_duration_seconds,
        heartbeat_interval_seconds=config.heartbeat_interval_seconds,
        enqueuer=JobService(config, store, bus=bus).enqueue,
        bus=bus,
        lateness={name: _lateness(use_case) for name, use_case in config.use_cases.items()},
    )


def _heartbeat_timeout(lease_seconds: float) -> float:
    """So short that a beat which hangs leaves time for another one before the lease is over."""
    return min(max(1.0, lease_seconds / 5), lease_seconds / 3)


def _lateness(use_case: UseCaseConfig) -> LatenessPolicy:
    return LatenessPolicy(
        on_late=OnLate(use_case.on_late), late_retry=LateRetry(use_case.late_retry)
    )


def build_slo_writer(config: AsyncJobsConfig, store: JobStore, *, bus: Bus) -> SloWriter:
    """Counts what *bus* carries and writes it down while `writing` runs."""
    record = SloRecord(by_tenant=config.slo_by_tenant == "on")
    bus.subscribe(SloListener(record).hear)
    return SloWriter(record, store.slo)


def no_vitals() -> Mapping[str, object]:
    """A process that tells nothing of itself."""
    return {}


def vitals_of(health: Health, loops: Sequence[Loop], clients: SqsClients) -> Vitals:
    """What a process tells of itself when it says that it lives: times are since it last did."""

    def vitals() -> Mapping[str, object]:
        return {
            "lag_seconds": round(health.take_longest_lag(), 4),
            "tick_seconds": round(max((loop.take_longest() for loop in loops), default=0.0), 4),
            **clients.counts(),
        }

    return vitals


def build_scheduler_presence(
    name: str,
    config: AsyncJobsConfig,
    store: JobStore,
    scheduler: Scheduler,
    vitals: Vitals = no_vitals,
) -> Presence:
    """Has *scheduler* seen by others, and steered by what operators set."""
    from async_jobs.steering import paused_by, steered

    def steer(overrides: Sequence[Override]) -> None:
        scheduler.steer(steered(config, overrides), paused_by(overrides))

    return Presence(
        store.steering,
        name=name,
        role="scheduler",
        serves=lambda: {"use_cases": list(config.use_cases), **vitals()},
        stop=scheduler.stop,
        steer=steer,
    )


def build_worker_presence(
    name: str,
    config: AsyncJobsConfig,
    store: JobStore,
    registry: JobRegistry,
    worker: Worker,
    vitals: Vitals = no_vitals,
) -> Presence:
    """Has *worker* seen by others: its queues, the types it has handlers for, what runs."""
    places = [_place(config, queue) for queue in config.worker_queue or config.use_cases]
    queues = list(dict.fromkeys(queue.rstrip("/").rpartition("/")[2] for _, queue in places))

    def serves() -> dict[str, object]:
        return {
            "queues": queues,
            "types": sorted(registry.types()),
            "running": worker.running,
            "concurrency": config.worker_concurrency,
            **vitals(),
        }

    return Presence(
        store.steering,
        name=name,
        role="worker",
        serves=serves,
        stop=lambda: worker.stop(grace_seconds=config.worker_grace_seconds),
    )


def build_receivers(
    name: str,
    config: AsyncJobsConfig,
    store: JobStore,
    queues: Sequence[str],
    clients: SqsClients,
    *,
    bus: Bus,
) -> list[Receiver]:
    """One receiver for each SQS queue, and one for all queues that live in PostgreSQL.

    *queues* are queue URLs, queue names or use case names; none means all configured ones.
    """
    wanted = [_place(config, queue) for queue in queues or config.use_cases]
    urls = dict.fromkeys(url for url, _ in wanted if url)
    receivers: list[Receiver] = [
        _sqs_receiver(name, config, store, url, clients, bus) for url in urls
    ]
    if tables := list(dict.fromkeys(queue for url, queue in wanted if not url)):
        receivers.append(
            PostgresReceiver(
                store,
                tables,
                worker=name,
                lease_seconds=config.lease_duration_seconds,
                poll_interval_seconds=config.worker_poll_interval_seconds,
                claimer=Claimer(
                    store.claims,
                    [each.name for each in config.use_cases.values() if each.queue in tables],
                    tables,
                    worker=name,
                    lease_seconds=config.lease_duration_seconds,
                    bus=bus,
                ),
            )
        )
    return receivers


def build_due_listener(
    name: str,
    config: AsyncJobsConfig,
    scheduler: Scheduler,
    ask_for_orders: Callable[[], None] | None = None,
) -> HintListener:
    """Wakes *scheduler* when producers hint, and asks for orders when operators changed things."""

    def on_hint(topic: str) -> None:
        if topic == OVERRIDES_CHANGED:
            if ask_for_orders is not None:
                ask_for_orders()
        elif topic:
            scheduler.hint(topic)
        else:
            scheduler.look_again()

    return HintListener(
        config.db_dsn,
        {"async_jobs_due": on_hint},
        application_name=name,
        on_connect=scheduler.look_again,
    )


def build_leased_listener(
    name: str, config: AsyncJobsConfig, receivers: Sequence[Receiver]
) -> HintListener | None:
    """Wakes receivers that take jobs from the table; None if there are none."""
    tables = [one for one in receivers if isinstance(one, PostgresReceiver)]
    if not tables:
        return None
    hears = {"async_jobs_leased": tables[0].ring, "async_jobs_due": tables[0].heard_due}
    return HintListener(config.db_dsn, hears, application_name=name)


def _sender(use_case: UseCaseConfig, clients: SqsClients) -> Sender:
    if use_case.sqs_queue_url is None:
        return PostgresSender()
    from async_jobs.transport.sqs import SqsSender

    return SqsSender(clients.client_for(use_case.sqs_queue_url), use_case.sqs_queue_url)


def _sqs_receiver(
    name: str, config: AsyncJobsConfig, store: JobStore, url: str, clients: SqsClients, bus: Bus
) -> Receiver:
    from async_jobs.transport.sqs import SqsReceiver

    return SqsReceiver(
        clients.client_for(url, long_poll_seconds=config.worker_long_poll_seconds),
        url,
        store,
        worker=name,
        lease_seconds=config.lease_duration_seconds,
        long_poll_seconds=config.worker_long_poll_seconds,
        visibility_timeout_seconds=config.worker_visibility_timeout_seconds,
        bus=bus,
    )


def _place(config: AsyncJobsConfig, queue: str) -> tuple[str | None, str]:
    """Where the jobs of *queue* come from: an SQS URL, or PostgreSQL under the queue's name."""
    if "://" in queue:
        return queue, queue
    by_queue = {use_case.queue: use_case for use_case in config.use_cases.values()}
    use_case = by_queue.get(queue) or config.use_case(queue)
    # A name that this process does not know may be another process's queue in PostgreSQL.
    return (use_case.sqs_queue_url, use_case.queue) if use_case else (None, queue)
