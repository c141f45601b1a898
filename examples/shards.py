"""Several databases behind one configuration: a tenant's jobs all lie in one of them.

Each database has its own schedulers, workers and queues, which know nothing of the others:
they are started with that database's DSN and queue URLs. Only those who enqueue and those who
look need this file. A tenant's place follows from its name (rendezvous hashing, Thaler and
Ravishankar 1998), so that a further database takes a share of the tenants from each of the
others and moves nobody else. `PLACES` pins a tenant to a database.

A tenant that moves takes no jobs along: new ones go to the new place, those that wait finish
where they are. Until they have, its quotas count in both, and a dedupe_key is unique in each.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from uuid import UUID

from async_jobs import AsyncJobsConfig, JobService
from async_jobs.models import Enqueued, Job, NewJob, Page

PLACES: Mapping[str, str] = {}


def configurations(dsns: Mapping[str, str]) -> dict[str, AsyncJobsConfig]:
    """The one configuration of the environment, once for each database."""
    return {
        name: AsyncJobsConfig.from_env({**os.environ, "ASYNC_JOBS_DB_DSN": dsn})
        for name, dsn in dsns.items()
    }


def place_of(tenant_id: str, shards: Sequence[str]) -> str:
    """The name of the database that holds a tenant's jobs."""
    return PLACES.get(tenant_id) or max(shards, key=lambda shard: _weight(shard, tenant_id))


def _weight(shard: str, tenant_id: str) -> bytes:
    return blake2b(tenant_id.encode(), key=shard.encode()[:64], digest_size=8).digest()


class Shards:
    """The services of all databases, as one."""

    def __init__(self, services: Mapping[str, JobService]) -> None:
        self._services = services

    def of(self, tenant_id: str) -> JobService:
        """The service of a tenant: for everything that concerns one tenant."""
        return self._services[place_of(tenant_id, list(self._services))]

    async def enqueue(self, new: NewJob) -> Enqueued:
        """Store one job where its tenant's jobs are."""
        return await self.of(new.tenant_id).enqueue(new)

    async def list(self, *, limit: int = 100, cursor: UUID | None = None) -> Page:
        """Jobs of all databases, newest first.

        Ids are in order of time, so pages of several databases merge into one, and its cursor
        continues in each of them.
        """
        pages = [
            await service.list(limit=limit, cursor=cursor) for service in self._services.values()
        ]
        merged = heapq.merge(*[page.jobs for page in pages], key=_by_age, reverse=True)
        jobs = list(islice(merged, limit))
        more = len(jobs) < sum(len(page.jobs) for page in pages)
        more = more or any(page.next_cursor for page in pages)
        return Page(jobs, jobs[-1].id if jobs and more else None)


def _by_age(job: Job) -> UUID:
    return job.id
