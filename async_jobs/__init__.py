"""Background jobs with a deadline, on PostgreSQL and SQS.

The names below are the public surface, together with the modules `models`,
`registry`, `ddl`, `config`, `errors` and `testing`. They load on first use, so
that a worker never imports the web stack and a client never imports a driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from async_jobs.api.metrics import create_metrics_router
    from async_jobs.api.router import create_jobs_router
    from async_jobs.assembly import create_pool
    from async_jobs.client import AsyncJobsHttpClient
    from async_jobs.config import AsyncJobsConfig
    from async_jobs.dashboard.router import create_dashboard_router
    from async_jobs.errors import Backpressure, Bury, Cancel, Retry, Snooze
    from async_jobs.models import NewJob
    from async_jobs.service import JobService
    from async_jobs.store.jobs import JobStore

__version__ = "0.1.0"

_HOMES = {
    "AsyncJobsConfig": "async_jobs.config",
    "AsyncJobsHttpClient": "async_jobs.client",
    "Backpressure": "async_jobs.errors",
    "Bury": "async_jobs.errors",
    "Cancel": "async_jobs.errors",
    "JobService": "async_jobs.service",
    "JobStore": "async_jobs.store.jobs",
    "NewJob": "async_jobs.models",
    "Retry": "async_jobs.errors",
    "Snooze": "async_jobs.errors",
    "create_dashboard_router": "async_jobs.dashboard.router",
    "create_jobs_router": "async_jobs.api.router",
    "create_metrics_router": "async_jobs.api.metrics",
    "create_pool": "async_jobs.assembly",
}

__all__ = [
    "AsyncJobsConfig",
    "AsyncJobsHttpClient",
    "Backpressure",
    "Bury",
    "Cancel",
    "JobService",
    "JobStore",
    "NewJob",
    "Retry",
    "Snooze",
    "__version__",
    "create_dashboard_router",
    "create_jobs_router",
    "create_metrics_router",
    "create_pool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
