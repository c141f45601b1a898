"""What one tenant may have, and how quotas are read from plain objects.

`config` keeps one `TenantQuota` for each tenant named in
ASYNC_JOBS_PER_TENANT_QUOTAS; "*" stands for every tenant that is not named.
Nothing here counts jobs or refuses any: that is the store's and the
scheduler's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from async_jobs import settings
from async_jobs.errors import ConfigError
from async_jobs.settings import Spec, number, raise_if_any, setting, whole

EVERY_TENANT = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQuota:
    """What one tenant may have; None means: as much as there is.

    `weight` is the tenant's share when several want the same slots. `burst` is how
    many jobs may go at once under `rate_per_second`; None: as many as in a second,
    at least one. Raises `ConfigError` when a value does not fit.
    """

    max_pending_jobs: int | None = setting(None, whole(0, 10**9), "Unfinished jobs")
    max_concurrent_jobs: int | None = setting(None, whole(0, 10**9), "Jobs in flight")
    rate_per_second: float | None = setting(
        None, number(0.001, 1_000_000), "Jobs leased in a second, in each use case"
    )
    burst: int | None = setting(None, whole(1, 10**6), "Jobs leased at once under rate_per_second")
    weight: float = setting(1.0, number(0.001, 1000), "Share when several tenants want slots")

    def __post_init__(self) -> None:
        problems = [*settings.problems_of(self, _specs()).values()]
        if self.burst is not None and self.rate_per_second is None:
            problems.append("burst: has no effect without rate_per_second; set that too")
        raise_if_any(problems)

    @property
    def most_at_once(self) -> int:
        """The burst, given or derived from the rate."""
        return self.burst or max(1, int(self.rate_per_second or 1))


def checked_quotas(variable: str, given: object) -> tuple[dict[str, TenantQuota], list[str]]:
    """Quotas by tenant, made of plain objects where needed, and what is wrong with them."""
    quotas: dict[str, TenantQuota] = {}
    problems: list[str] = []
    for tenant_id, quota in given.items() if isinstance(given, Mapping) else ():
        try:
            quotas[tenant_id] = quota if isinstance(quota, TenantQuota) else _quota_of(quota)
        except ConfigError as error:
            problems.extend(f"{variable}: tenant {tenant_id!r}: {text}" for text in error.problems)
    return quotas, problems


def _specs() -> tuple[Spec, ...]:
    return settings.specs_of(TenantQuota, "%(name)s")


UNLIMITED = TenantQuota()


def _quota_of(given: object) -> TenantQuota:
    if not isinstance(given, Mapping):
        raise ConfigError(['needs a JSON object, such as {"max_pending_jobs": 100}'])
    known = [spec.field for spec in _specs()]
    problems = [
        f"unknown key {key!r}{settings.hint(str(key), known)}; the keys are {', '.join(known)}"
        for key in given
        if key not in known
    ]
    quota = UNLIMITED
    try:
        quota = TenantQuota(**{key: given[key] for key in known if key in given})
    except ConfigError as error:
        problems.extend(error.problems)
    raise_if_any(problems)
    return quota
