"""How accepted jobs become rows: dedupe and quotas, free of races.

    nothing of the below      one statement, one commit
    single jobs together      calls at the same time share statement and commit: see `convoy.py`
    dedupe_key, chosen id     the unique index decides who is first; only for the second caller a
                              second statement looks up the first one's job, and its id is the
                              answer. Same key or id, other request: refused
    quota                     the tenant's enqueues queue up behind an advisory lock that ends
                              with the transaction; then count (bounded), then insert

A batch is stored whole or not at all. On the caller's connection more than one
statement runs in a savepoint, so that a refusal leaves the caller's transaction
usable, and the tenant's lock is held until the caller commits.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from psycopg.rows import scalar_row, tuple_row

from async_jobs.core.clock import Clock
from async_jobs.core.overload import wait_seconds
from async_jobs.errors import DedupeConflict, JobIdTaken, QuotaExceeded, StoreUnavailable
from async_jobs.models import AcceptedJob, Enqueued
from async_jobs.store.convoy import Single, convoy_of
from async_jobs.store.door import Connection, Door, is_refusal
from async_jobs.store.queries import query
from async_jobs.telemetry import traces

_INSERT = query("insert_jobs")
_INSERT_ONE = query("insert_job", "single")
_INSERT_ABSENT = query("insert_absent_jobs")
_FIND_STORED = query("find_stored_jobs")
_LOCK_TENANTS = query("lock_tenants")
_COUNT_UNFINISHED = query("count_unfinished")
_FIND_LIVE_TWINS = query("find_live_twins")
_SAMPLE_RUNNING = query("sample_running")

_SHARED = {
    "tenant_id": "tenant_ids",
    "use_case": "use_cases",
    "type": "types",
    "queue": "queues",
    "run_at": "run_ats",
    "delay_tolerance_seconds": "tolerances_seconds",
    "priority": "priorities",
    "max_attempts": "most_attempts",
    "backoff_json": "backoff_policies",
    "trace_context": "trace_contexts",
    "latest_deadline_at": "latest_deadlines",
    "timeout_seconds": "timeouts_seconds",
}
"""Columns that have one value in most batches, and what their array is called where not."""

MOST_SAMPLED = 500
SHORTEST_RUN_SECONDS = 1e-3
UNKNOWN_WAIT_SECONDS = 5.0
_MOST_LOOKS = 5
"""A twin that was in the way may have ended before it is looked up."""
MOST_SHARED_CHARACTERS = 16_384
"""A longer payload goes alone: it would gain nothing, and keep its neighbours waiting."""
TWIN_PATIENCE = "250ms"
"""How long those who share a statement wait for a stranger's transaction that holds a twin."""


class Enqueuer:
    """The store's enqueue move."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock

    async def enqueue(
        self,
        jobs: Sequence[AcceptedJob],
        *,
        quotas: Mapping[str, int],
        use_cases: Sequence[str],
        hints: Sequence[str],
        connection: Connection | None,
    ) -> list[Enqueued]:
        """Store *jobs*; *quotas* holds the most unfinished jobs of each bounded tenant.

        Raises QuotaExceeded, DedupeConflict or JobIdTaken, and then has stored nothing.
        """
        if not jobs:
            return []
        with traces.enqueuing(jobs):
            if len(jobs) == 1 and not quotas:
                return [await self._store_single(jobs[0], hints, connection)]
            contexts = [traces.context_to_store()] * len(jobs)
            if not quotas and not any(job.is_repeatable for job in jobs):
                params = self._params(jobs, hints, contexts)
                await self._door.rows(_INSERT, params, tuple_row, on=connection)
                return [Enqueued(job.id) for job in jobs]
            async with self._door.transaction(connection) as conn:
                await self._check_quotas(jobs, quotas, use_cases, conn)
                twins = await self._insert(jobs, hints, contexts, conn)
        return _answers(jobs, twins)

    async def _store_single(
        self, job: AcceptedJob, hints: Sequence[str], connection: Connection | None
    ) -> Enqueued:
        single = Single(job, hints, traces.context_to_store())
        small = len(job.payload_json) <= MOST_SHARED_CHARACTERS
        if connection is not None or not small or self._clock.now() is not None:
            return await self._insert_single(single, connection)
        convoy = convoy_of(self._door.pool, (self._door.timeout_seconds, job.is_repeatable))
        return await convoy.store(single, self)

    async def alone(self, single: Single) -> Enqueued:
        """Store one job, in a statement of its own."""
        return await self._insert_single(single, None)

    async def together(self, singles: Sequence[Single]) -> list[Enqueued | Exception | None]:
        """Store jobs of several callers, all plain or all repeatable, in one statement.

        None for those that are to go alone: they have twins, or what was wrong with one of them
        kept all of them out.
        """
        distinct = _distinct(singles)
        try:
            stored = await self._insert_distinct(distinct)
        except StoreUnavailable as error:
            if not is_refusal(error):
                return [_anew(error) for _ in singles]
            stored = set()
        except Exception:
            # One of them is to blame; alone, each is told what is wrong with it.
            stored = set()
        taken = {id(single) for single in distinct if single.job.id in stored}
        return [Enqueued(one.job.id) if id(one) in taken else None for one in singles]

    async def _insert_distinct(self, singles: Sequence[Single]) -> set[UUID]:
        """Store what has no twin; the ids of those."""
        jobs = [single.job for single in singles]
        hints = list(dict.fromkeys(hint for single in singles for hint in single.hints))
        params = self._params(jobs, hints, [single.trace_context for single in singles])
        if not jobs[0].is_repeatable:
            await self._door.rows(_INSERT, params, tuple_row)
            return {job.id for job in jobs}
        params |= _twin_params(jobs, TWIN_PATIENCE)
        return {row[0] for row in await self._door.rows(_INSERT_ABSENT, params, tuple_row)}

    async def _insert_single(self, single: Single, connection: Connection | None) -> Enqueued:
        job = single.job
        if not job.is_repeatable:
            params = job._asdict()
            params["now"] = self._clock.now()
            params["trace_context"] = single.trace_context
            params["hints"] = single.hints or None
            await self._door.rows(_INSERT_ONE, params, tuple_row, on=connection)
            return Enqueued(job.id)
        contexts = [single.trace_context]
        twins = await self._insert([single.job], single.hints, contexts, connection)
        return _answers([single.job], twins)[0]

    async def find_stored(
        self, jobs: Sequence[AcceptedJob], *, connection: Connection | None
    ) -> list[Enqueued] | None:
        """What `enqueue` would answer if every one of *jobs* is stored already, else None."""
        if not all(job.is_repeatable for job in jobs):
            return None
        twins = await self._find(jobs, connection)
        if not all(job.id in twins for job in jobs):
            return None
        return _answers(jobs, twins)

    async def _insert(
        self,
        jobs: Sequence[AcceptedJob],
        hints: Sequence[str],
        contexts: Sequence[str | None],
        conn: Connection | None,
    ) -> dict[UUID, UUID]:
        """Store the jobs; gives the twin's id for each that was there already."""
        doubtful = [job for job in jobs if job.is_repeatable]
        plain = jobs if not doubtful else [job for job in jobs if not job.is_repeatable]
        if plain:
            params = self._params(plain, hints, contexts[: len(plain)])
            await self._door.rows(_INSERT, params, tuple_row, on=conn)
        if not doubtful:
            return {}
        firsts, others = _apart(doubtful)
        twins = await self._insert_absent(firsts, hints, contexts, conn)
        return twins | (await self._find(others, conn) if others else {})

    async def _insert_absent(
        self,
        jobs: Sequence[AcceptedJob],
        hints: Sequence[str],
        contexts: Sequence[str | None],
        conn: Connection | None,
    ) -> dict[UUID, UUID]:
        absent = {job.id: job for job in jobs}
        twins: dict[UUID, UUID] = {}
        for _ in range(_MOST_LOOKS):
            left = list(absent.values())
            params = self._params(left, hints, contexts[: len(left)]) | _twin_params(left)
            for stored_id, _ in await self._door.rows(_INSERT_ABSENT, params, tuple_row, on=conn):
                del absent[stored_id]
            if absent:
                twins |= await self._find(list(absent.values()), conn)
            absent = {job_id: job for job_id, job in absent.items() if job_id not in twins}
            if not absent:
                return twins
        # Taken by a row that this connection may not see.
        raise JobIdTaken(next(iter(absent)))

    async def _find(self, jobs: Sequence[AcceptedJob], conn: Connection | None) -> dict[UUID, UUID]:
        """The stored job's id for each of *jobs* that is stored; raises for another request."""
        params = {
            "ids": [job.id for job in jobs],
            "tenant_ids": [job.tenant_id for job in jobs],
            "use_cases": [job.use_case for job in jobs],
            "types": [job.type for job in jobs],
            "payloads": [job.payload_json for job in jobs],
            "dedupe_keys": [job.dedupe_key for job in jobs],
        }
        found = await self._door.rows(_FIND_STORED, params, tuple_row, on=conn)
        for asked_id, job_id, same_request in found:
            if not same_request:
                raise JobIdTaken(job_id) if job_id == asked_id else DedupeConflict(job_id)
        return {asked_id: job_id for asked_id, job_id, _ in found}

    async def _check_quotas(
        self,
        jobs: Sequence[AcceptedJob],
        quotas: Mapping[str, int],
        use_cases: Sequence[str],
        conn: Connection,
    ) -> None:
        bounded = Counter(job.tenant_id for job in jobs if job.tenant_id in quotas)
        if not bounded:
            return
        locks = {"tenant_ids": sorted(bounded)}
        await self._door.rows(_LOCK_TENANTS, locks, tuple_row, on=conn)
        keys = _dedupe_keys(jobs)
        for tenant_id, asked in bounded.items():
            unfinished = await self._unfinished(tenant_id, use_cases, quotas[tenant_id], conn)
            # A requeue may have brought the tenant over its quota; a twin needs no room even then.
            room = max(0, quotas[tenant_id] - unfinished)
            if asked > room:
                # Twins of unfinished jobs add nothing; looked up only when it decides.
                asked -= await self._twins(tenant_id, keys[tenant_id], conn)
                asked -= _repeated(jobs, tenant_id)
            if asked > room:
                wait = await self._wait_for_room(tenant_id, asked - room, use_cases, conn)
                raise QuotaExceeded(tenant_id, quotas[tenant_id], retry_after_seconds=wait)

    async def _unfinished(
        self, tenant_id: str, use_cases: Sequence[str], most: int, conn: Connection
    ) -> int:
        params = {"tenant_id": tenant_id, "use_cases": list(use_cases), "most": most}
        counted = await self._door.rows(
            _COUNT_UNFINISHED, params, scalar_row, on=conn, prepare=False
        )
        return int(counted[0])

    async def _wait_for_room(
        self, tenant_id: str, jobs: int, use_cases: Sequence[str], conn: Connection
    ) -> float:
        """How long until *jobs* of the tenant have ended, at the pace of those it runs now."""
        params = {
            "tenant_id": tenant_id,
            "use_cases": list(use_cases),
            "most": MOST_SAMPLED,
            "now": self._clock.now(),
        }
        [(running, mean_age_seconds)] = await self._door.rows(
            _SAMPLE_RUNNING, params, tuple_row, on=conn, prepare=False
        )
        if not running:
            return UNKNOWN_WAIT_SECONDS
        # Where jobs come and go evenly, what is left of them is as long as what is behind them.
        per_second = running / max(mean_age_seconds, SHORTEST_RUN_SECONDS)
        return wait_seconds(jobs, per_second, random=random.random())

    async def _twins(self, tenant_id: str, keys: Sequence[str], conn: Connection) -> int:
        params = {"tenant_id": tenant_id, "dedupe_keys": list(keys)}
        return int((await self._door.rows(_FIND_LIVE_TWINS, params, scalar_row, on=conn))[0])

    def _params(
        self, jobs: Sequence[AcceptedJob], hints: Sequence[str], contexts: Sequence[str | None]
    ) -> dict[str, object]:
        columns = dict(zip(AcceptedJob._fields, zip(*jobs, strict=True), strict=True))
        columns["trace_context"] = tuple(contexts)
        params: dict[str, object] = {
            "now": self._clock.now(),
            "ids": list(columns["id"]),
            "payloads": "\n".join(columns["payload_json"]),
            "hints": list(hints),
        }
        for name, plural in _SHARED.items():
            values = columns[name]
            # A column of one value goes as that value: the server reads 2 arrays and not 14.
            alike = values.count(values[0]) == len(values)
            params[name] = values[0] if alike else None
            params[plural] = None if alike else list(values)
        return params


def _twin_params(jobs: Sequence[AcceptedJob], patience: str | None = None) -> dict[str, object]:
    return {"dedupe_keys": [job.dedupe_key for job in jobs], "patience": patience}


def _anew(error: StoreUnavailable) -> StoreUnavailable:
    """The same for another caller: a raised error carries the traceback of one."""
    own = StoreUnavailable(str(error))
    own.__cause__ = error.__cause__
    return own


def _distinct(singles: Sequence[Single]) -> list[Single]:
    """Those of *singles* that are not in each other's way: the first of each id and each key."""
    taken: set[object] = set()
    distinct = []
    for single in singles:
        job = single.job
        names = {job.id, (job.tenant_id, job.dedupe_key or job.id)}
        if taken.isdisjoint(names):
            distinct.append(single)
            taken |= names
    return distinct


def _answers(jobs: Sequence[AcceptedJob], twins: Mapping[UUID, UUID]) -> list[Enqueued]:
    """One for each job; what comes a second time in *jobs* was there already."""
    answered: set[UUID] = set()
    answers = []
    for job in jobs:
        answers.append(Enqueued(twins.get(job.id, job.id), job.id in twins or job.id in answered))
        answered.add(job.id)
    return answers


def _apart(jobs: Sequence[AcceptedJob]) -> tuple[list[AcceptedJob], list[AcceptedJob]]:
    """The first job of each id and key, and those that repeat a key; raises for a doubtful id."""
    by_id: dict[UUID, AcceptedJob] = {}
    by_key: dict[tuple[str, str | UUID], AcceptedJob] = {}
    for job in jobs:
        if not _same_request(job, by_id.setdefault(job.id, job)):
            raise JobIdTaken(job.id)
        by_key.setdefault((job.tenant_id, job.dedupe_key or job.id), job)
    firsts = {job.id for job in by_key.values()}
    others = [job for job in by_id.values() if job.id not in firsts]
    return list(by_key.values()), others


def _same_request(one: AcceptedJob, other: AcceptedJob) -> bool:
    asked, other_asked = (
        (job.tenant_id, job.use_case, job.type, job.dedupe_key) for job in (one, other)
    )
    return asked == other_asked and (
        one.payload_json == other.payload_json
        or _canonical(one.payload_json) == _canonical(other.payload_json)
    )


def _canonical(payload_json: str) -> str:
    return json.dumps(json.loads(payload_json), sort_keys=True)


def _dedupe_keys(jobs: Sequence[AcceptedJob]) -> dict[str, list[str]]:
    keys: dict[str, set[str]] = defaultdict(set)
    for job in jobs:
        if job.dedupe_key is not None:
            keys[job.tenant_id].add(job.dedupe_key)
    return defaultdict(list, {tenant_id: sorted(found) for tenant_id, found in keys.items()})


def _repeated(jobs: Sequence[AcceptedJob], tenant_id: str) -> int:
    """How many jobs of the batch repeat a dedupe_key of the same batch."""
    keys = [job.dedupe_key for job in jobs if job.tenant_id == tenant_id and job.dedupe_key]
    return len(keys) - len(set(keys))
