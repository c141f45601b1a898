"""JobStore: every move of a job, one method and one statement each, on batches.

Statements are in `jobs.sql` under the name of the move. Methods say whether the
move took effect and never raise for a row that was in another state: a lost
race is a normal answer here. They raise StoreUnavailable when the database
cannot be reached in time, and then nothing is known about the write; each move
may be repeated, because lease_seq or the dedupe_key refuses the second one.

Producers may pass their own psycopg connection to `enqueue`: the jobs then
commit or roll back with their data. Everything else commits by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row, scalar_row, tuple_row
from psycopg_pool import AsyncConnectionPool

from async_jobs.core.acceptance import MAX_ATTEMPTS
from async_jobs.core.clock import Clock, DatabaseClock
from async_jobs.core.endings import Endings, FlowKey
from async_jobs.core.filters import LOOKED_PER_PAGE
from async_jobs.core.forecast import Demand
from async_jobs.core.outcome import SUCCEEDED, Outcome
from async_jobs.errors import InvalidJob, MoveRefused
from async_jobs.models import AcceptedJob, Enqueued, Job, JobStatus, Page, StartedJob, Ticket
from async_jobs.simulation.arrivals import Arrival
from async_jobs.store.claims import Claims
from async_jobs.store.demand import DemandReader
from async_jobs.store.door import Connection, Door
from async_jobs.store.enqueue import Enqueuer
from async_jobs.store.forecast import read_demand
from async_jobs.store.ladder import report_endings
from async_jobs.store.matching import MatchingJobs
from async_jobs.store.migrate import apply, check
from async_jobs.store.queries import query
from async_jobs.store.retention import Retention
from async_jobs.store.slo import SloTable
from async_jobs.store.started import started_jobs
from async_jobs.store.steering import SteeringTables
from async_jobs.store.trace import PAGE, finished_pages
from async_jobs.store.turn import InFlight, Turn, count_in_flight, take_turn
from async_jobs.store.whole_rows import job_row, listed_row, read_leniently

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What an idle scheduler needs to know: is there work, and if not, when."""

    use_cases_with_work: list[str]
    next_due_in_seconds: float | None
    next_expiry_in_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """A job whose lease ran out, and what became of it."""

    job_id: UUID
    lease_seq: int
    tenant_id: str
    use_case: str
    type: str
    queue: str
    attempts: int
    status: JobStatus
    worker: str | None
    was_running: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", JobStatus(self.status))


class JobStore:
    """The jobs in PostgreSQL, on a pool that its owner opens and closes.

    `timeout_seconds` bounds each call, the wait for a connection included.
    `clock` is for tests and simulations; production leaves time to the database.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        *,
        timeout_seconds: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._pool = pool
        self._door = Door(pool, timeout_seconds=timeout_seconds)
        self._clock = clock or DatabaseClock()
        self._enqueuer = Enqueuer(self._door, self._clock)
        self.demand = DemandReader(self._door, self._clock)
        self.slo = SloTable(self._door, self._clock)
        self.retention = Retention(self._door, self._clock)
        self.steering = SteeringTables(self._door, self._clock)
        self.matching = MatchingJobs(self._door, self._clock)
        self.claims = Claims(self._door, self._clock)

    # Schema

    async def init_schema(self) -> None:
        """Create or update the schema; safe from several processes at once."""
        async with self._door.transaction() as conn:
            await apply(conn)

    async def check_schema(self) -> None:
        """Raise SchemaOutdated if the database is older than this library needs."""
        async with self._door.transaction() as conn:
            await check(conn)

    async def ping(self) -> None:
        """Return if the database answers; raises StoreUnavailable."""
        await self._door.rows(query("ping"), {}, scalar_row)

    # Producers and operators

    @property
    def origin(self) -> object:
        """The pool: stores on one pool see the same jobs."""
        return self._pool

    async def read_demand(self, use_case: str) -> Demand:
        """What *use_case* has to do, for forecasts; bounded whatever its backlog."""
        return await read_demand(self._door, use_case, now=self._clock.now())

    async def enqueue(
        self,
        jobs: Sequence[AcceptedJob],
        *,
        quotas: Mapping[str, int] | None = None,
        use_cases: Sequence[str] = (),
        hints: Sequence[str] = (),
        connection: Connection | None = None,
    ) -> list[Enqueued]:
        """Store all of *jobs* or none; see `store/enqueue.py` for dedupe and quotas."""
        return await self._enqueuer.enqueue(
            jobs, quotas=quotas or {}, use_cases=use_cases, hints=hints, connection=connection
        )

    async def find_stored(
        self, jobs: Sequence[AcceptedJob], *, connection: Connection | None = None
    ) -> list[Enqueued] | None:
        """What `enqueue` would answer if every one of *jobs* is stored already, else None."""
        return await self._enqueuer.find_stored(jobs, connection=connection)

    async def hint(self, topics: Sequence[str]) -> None:
        """Wake schedulers that listen: jobs of these use cases may be due ("" for any)."""
        await self._door.rows(query("hint_due"), {"topics": list(topics)}, scalar_row)

    def finished_pages(
        self, use_case: str, *, since: datetime | None = None, page: int = PAGE
    ) -> AsyncIterator[list[Arrival]]:
        """What ran to its end, as it arrived, page by page; see `store/trace.py`."""
        return finished_pages(self._door, use_case, since=since, page=page)

    async def get(self, job_id: UUID, *, tenant_id: str | None = None) -> Job | None:
        """One job, whole; with *tenant_id* none of another tenant."""
        params = {"id": job_id, "tenant_id": tenant_id}
        found = await self._whole(query("get_job"), params)
        return found[0] if found else None

    async def find(
        self,
        *,
        tenant_id: str | None = None,
        use_case: str | None = None,
        status: JobStatus | None = None,
        before: UUID | None = None,
        limit: int = 100,
        payloads: bool = True,
        look: int = LOOKED_PER_PAGE,
    ) -> Page:
        """Jobs newest first; `before` is the `next_cursor` of the page before this one.

        Reads at most *look* rows beside those that hold a lease. Without *payloads* their payload
        and result are not read, and None.
        """
        params = {
            "payloads": payloads,
            "tenant_id": tenant_id,
            "use_case": use_case,
            "status": status,
            "before": before,
            "most": limit + 1,
            "look": look,
        }
        sql = query("list_jobs", "lists")
        rows = await self._door.rows(sql, params, listed_row, prepare=False, set_up=read_leniently)
        jobs = [job for _, job in rows if job is not None]
        if len(jobs) > limit:
            return Page(jobs[:limit], jobs[limit - 1].id)
        looked_to = rows[0][0]
        cut = looked_to is not None and len(jobs) < limit
        return Page(jobs, looked_to, look if cut else 0)

    async def cancel(
        self, job_id: UUID, *, tenant_id: str | None = None, actor: str | None = None
    ) -> Job | None:
        """Cancel a pending job at once, ask a running one to end; None if it has finished.

        With *actor* the audit tells who did it, if nobody had asked before.
        """
        return await self._one_job("cancel_job", id=job_id, tenant_id=tenant_id, actor=actor)

    async def requeue(
        self,
        job_id: UUID,
        *,
        more_attempts: int,
        tenant_id: str | None = None,
        actor: str | None = None,
    ) -> Job | None:
        """Put a finished job back with fresh attempts; None if it is not finished.

        With *actor* the audit tells who did it.

        Raises MoveRefused if an unfinished job holds its dedupe_key, InvalidJob if
        *more_attempts* is not from 1 to 1,000.
        """
        if not 1 <= more_attempts <= MAX_ATTEMPTS:
            raise InvalidJob("more_attempts", "out_of_range", f"must be from 1 to {MAX_ATTEMPTS}")
        try:
            return await self._one_job(
                "requeue_job",
                id=job_id,
                tenant_id=tenant_id,
                more_attempts=more_attempts,
                actor=actor,
            )
        except UniqueViolation as error:
            raise MoveRefused(
                job_id, "requeue", "finished", "An unfinished job holds its dedupe_key."
            ) from error

    # Scheduler

    async def survey(self, use_cases: Sequence[str]) -> Survey:
        """One cheap look: which of *use_cases* have waiting jobs, what happens next."""
        params = {"use_cases": list(use_cases), "now": self._clock.now()}
        return (await self._door.rows(query("survey"), params, class_row(Survey)))[0]

    async def promote_due(self, most: int) -> Counter[str]:
        """Let up to *most* scheduled jobs whose time has come begin to wait, by use case."""
        return Counter(await self._scalars("promote_due", most=most))

    async def rescue(self, most: int) -> list[Rescued]:
        """Take back up to *most* jobs whose lease ran out."""
        params = {"now": self._clock.now(), "most": most}
        return await self._door.rows(
            query("rescue_jobs"), params, class_row(Rescued), prepare=False
        )

    def take_turn(self, use_case: str) -> AbstractAsyncContextManager[Turn | None]:
        """The exclusive right to lease in *use_case*; None while another scheduler has it."""
        return take_turn(self._door, use_case, now=self._clock.now())

    async def count_in_flight(self, use_case: str) -> InFlight:
        """Leases held, for a look; who acts on it counts again in a turn."""
        return await count_in_flight(self._door, use_case, now=self._clock.now())

    async def release(self, tickets: Sequence[Ticket], *, enqueue_failed: bool) -> int:
        """Give leases back that no worker started; how many it took effect on."""
        params = {**_columns(tickets), "enqueue_failed": enqueue_failed}
        return len(await self._scalars("release_jobs", **params))

    async def renew(
        self, tickets: Sequence[Ticket], *, lease_seconds: float, most_seconds: float
    ) -> set[UUID]:
        """Let leases that no worker has started last *lease_seconds* from now; gives those jobs.

        No lease lasts longer than *most_seconds* in all.
        """
        renewed = await self._scalars(
            "renew_leases",
            **_columns(tickets),
            lease_seconds=lease_seconds,
            most_seconds=most_seconds,
        )
        return set(renewed)

    async def prune(self, use_case: str, *, retention_seconds: float, most: int) -> int:
        """Delete up to *most* jobs that finished longer ago than the retention."""
        return len(
            await self._scalars(
                "prune_finished",
                use_case=use_case,
                retention_seconds=retention_seconds,
                most=most,
            )
        )

    # Worker

    async def start(
        self, tickets: Sequence[Ticket], *, worker: str, lease_seconds: float
    ) -> list[StartedJob]:
        """Start the jobs these tickets still open; the others are not in the answer."""
        params = {
            **_columns(tickets),
            "worker": worker,
            "lease_seconds": lease_seconds,
            "now": self._clock.now(),
        }
        return started_jobs(await self._door.rows(query("start_jobs"), params, tuple_row))

    async def start_leased(
        self, queues: Sequence[str], *, slots: int, worker: str, lease_seconds: float
    ) -> list[StartedJob]:
        """Pick up to *slots* leased jobs of these queues and start them, in one statement."""
        params = {
            "queues": list(queues),
            "slots": slots,
            "worker": worker,
            "lease_seconds": lease_seconds,
            "now": self._clock.now(),
        }
        return started_jobs(await self._door.rows(query("start_leased"), params, tuple_row))

    async def finish(self, ended: Sequence[tuple[StartedJob, Outcome]]) -> set[UUID]:
        """Record how attempts ended; the ids it took effect on (the others lost their lease)."""
        in_order = sorted(ended, key=lambda pair: pair[0].id.int)
        return set(await self._scalars("finish_attempts", **_outcome_columns(in_order)))

    async def report_endings(self, endings: Endings, use_cases: Iterable[str]) -> set[FlowKey]:
        """Tell what failed; the flows of *use_cases* that fail in some worker."""
        return await report_endings(self._door, endings, use_cases, now=self._clock.now())

    async def _scalars(self, name: str, **params: object) -> list[Any]:
        prepare = False if "most" in params else None
        params["now"] = self._clock.now()
        return await self._door.rows(query(name), params, scalar_row, prepare=prepare)

    async def _one_job(self, name: str, **params: object) -> Job | None:
        params["now"] = self._clock.now()
        found = await self._whole(query(name), params)
        return found[0] if found else None

    async def _whole(
        self, sql: bytes, params: Mapping[str, object], *, prepare: bool | None = None
    ) -> list[Job]:
        return await self._door.rows(sql, params, job_row, prepare=prepare, set_up=read_leniently)


def _outcome_columns(ended: Sequence[tuple[StartedJob, Outcome]]) -> dict[str, object]:
    """What `finish_attempts` is told, a column each."""
    outcomes = [outcome for _, outcome in ended]
    told = outcomes if any(outcome is not SUCCEEDED for outcome in outcomes) else []
    return {
        "ids": [job.id for job, _ in ended],
        "lease_seqs": [job.lease_seq for job, _ in ended],
        "statuses": _unless_all([outcome.status.value for outcome in told], "succeeded"),
        "delays_seconds": _unless_all([outcome.delay_seconds for outcome in told], None),
        "attempts_back": _unless_all([int(outcome.gives_attempt_back) for outcome in told], 0),
        "errors": _unless_all([outcome.error_json for outcome in told], None),
        "results": _unless_all([outcome.result_json for outcome in told], None),
        "traceparents": _unless_all([outcome.traceparent for outcome in told], None),
    }


def _unless_all(values: list[Value], usual: Value) -> list[Value] | None:
    """*values*, or None, which says the same in less time, if all are the *usual* one."""
    return None if values.count(usual) == len(values) else values


def _columns(tickets: Sequence[Ticket]) -> dict[str, object]:
    """Sorted by id, so that two batches lock their rows in the same order."""
    in_order = sorted(tickets, key=lambda ticket: ticket.job_id.int)
    return {
        "ids": [ticket.job_id for ticket in in_order],
        "lease_seqs": [ticket.lease_seq for ticket in in_order],
    }
