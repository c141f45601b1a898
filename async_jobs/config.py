"""Configuration: which settings exist, how they relate, and what the environment says.

Every process builds one `AsyncJobsConfig` at its start, from the environment or
by hand, and passes it down. No other module reads `os.environ`. A new setting
is one field below: its variable is `ASYNC_JOBS_` and the field's name in
capitals, and reading, checking and documentation follow from it.

All problems are collected and raised as one `ConfigError`, whichever way the
object is made. Neither a problem nor a `repr` ever holds a secret or a value
that was refused. A name that only looks like a setting of ours is a warning.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from async_jobs import settings
from async_jobs.access import ApiToken, checked_tokens
from async_jobs.errors import ConfigError
from async_jobs.models import LateRetry, OnLate, canonical_name
from async_jobs.quota import EVERY_TENANT, UNLIMITED, TenantQuota, checked_quotas
from async_jobs.relations import PREFIX as PREFIX
from async_jobs.relations import RELATIONS
from async_jobs.settings import Setting, Spec, raise_if_any, seconds, setting, whole
from async_jobs.settings import is_loopback as is_loopback  # for those who may not read settings

ALWAYS_PRESENT = ("notifications", "message_labeling")
TEN_YEARS_SECONDS = 315_576_000.0
_KEPT = seconds(0, TEN_YEARS_SECONDS)
_DSN_MEANING = "PostgreSQL connection string"

__all__ = ["AsyncJobsConfig", "ConfigWarning", "TenantQuota", "UseCaseConfig", "canonical_name"]

Warn = Callable[[str], object]


class ConfigWarning(UserWarning):
    """The environment holds a name that looks like a setting of ours but is none."""


def _warn(text: str) -> None:
    warnings.warn(text, ConfigWarning, stacklevel=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCaseConfig:
    """One use case: its capacity, its default tolerance, and its SQS queue if it has one."""

    name: str
    sqs_queue_url: str | None = setting(
        None,
        settings.QUEUE_URL,
        "SQS queue URL for {}",
        variables="ASYNC_JOBS_SQS_QUEUE_{}",
        unset="PostgreSQL itself is the transport",
    )
    max_concurrent: int = setting(10, whole(1, 100_000), "Max concurrent {} jobs")
    default_delay_tolerance_seconds: float = setting(
        60.0, seconds(0, TEN_YEARS_SECONDS), "Default delay tolerance for {}, in seconds"
    )
    on_late: str = setting(
        "run",
        settings.choice(OnLate, str.lower),
        "What becomes of {} jobs whose deadline passes before they start",
    )
    late_retry: str = setting(
        "allow",
        settings.choice(LateRetry, str.lower),
        "What becomes of {} retries that would come after the deadline first promised",
    )

    slo_target: float = setting(
        0.99,
        settings.number(0, 0.99999),
        "Share of {} jobs that is to start before the deadline; the rest is the error budget",
    )
    breaker: str = setting(
        "on",
        settings.SWITCH,
        "Whether {} jobs of a type and tenant that mostly fail are held back, on or off",
    )
    overload: str = setting(
        "refuse",
        settings.choice(("refuse", "accept"), str.lower),
        "Whether new {} jobs that would be late are refused to tenants above their share, or "
        "accepted like all others",
    )
    retention_seconds: float | None = setting(
        None, _KEPT, "Seconds finished {} jobs are kept", unset=PREFIX + "RETENTION_SECONDS"
    )
    retention_dead_seconds: float | None = setting(
        None, _KEPT, "Seconds dead {} jobs are kept", unset="as long as other finished ones"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", canonical_name(self.name))
        problems = settings.problems_of(self, _use_case_specs(), self.name.upper())
        names = settings.name_problems(self.name, PREFIX, _specs())
        raise_if_any([*names, *problems.values()])

    @property
    def uses_sqs(self) -> bool:
        return self.sqs_queue_url is not None

    @property
    def queue(self) -> str:
        """The queue's name: the end of its URL, or the use case's name when there is no URL."""
        return urlsplit(self.sqs_queue_url or self.name).path.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncJobsConfig:
    """Everything that can be set, read once and then unchangeable.

    Only `db_dsn` is required. Durations are seconds and accept fractions. Raises
    `ConfigError` with every problem at once. `origin` is filled by `from_env`
    and only serves `describe`.
    """

    db_dsn: str = field(repr=False, metadata=settings.required(settings.DSN, _DSN_MEANING))
    use_cases: Mapping[str, UseCaseConfig] = field(default_factory=dict)
    per_tenant_quotas: Mapping[str, TenantQuota] = setting(
        MappingProxyType({}),
        settings.QUOTAS,
        'JSON object with per-tenant quotas; "*" stands for every tenant not named',
        unset="no quotas",
    )
    enqueue_auth_token: str | None = setting(
        None, settings.TOKEN, "Authentication token for API", secret=True
    )
    api_tokens: Sequence[ApiToken] = setting(
        (),
        settings.TOKENS,
        "JSON list of API tokens, each with its scopes, and its tenant if it is bound to one",
        secret=True,
        unset="only the one token above",
    )
    scheduler_interval_seconds: float = setting(
        5.0, seconds(0.01, 3600), "Scheduler loop interval, in seconds"
    )
    worker_poll_interval_seconds: float = setting(
        1.0, seconds(0.01, 3600), "Worker poll interval, in seconds"
    )
    worker_visibility_timeout_seconds: float = setting(
        300.0, seconds(0.01, 43_200), "SQS visibility timeout, in seconds; SQS gets it rounded up"
    )
    lease_duration_seconds: float = setting(
        300.0, seconds(0.1, 86_400), "Seconds after which a running job not heard of is rescued"
    )
    dispatch_lease_seconds: float = setting(
        15.0, seconds(0.1, 86_400), "Seconds a leased job may wait for a worker to start it"
    )
    heartbeat_interval_seconds: float = setting(
        None,
        seconds(0.01, 43_200),
        "Seconds after which a worker extends the leases of its running jobs again",
        unset="a fifth of the lease duration, at most 30",
    )
    handlers_module: str | None = setting(
        None, settings.MODULE, "Python module containing job handlers (for worker)"
    )
    worker_queue: tuple[str, ...] = setting(
        (),
        settings.QUEUES,
        "Queues a worker consumes, separated by commas; `QUEUE_URL` is read when this is unset",
        variables="ASYNC_JOBS_WORKER_QUEUE QUEUE_URL",
    )
    worker_concurrency: int = setting(10, whole(1, 10_000), "Attempts a worker runs at a time")
    worker_grace_seconds: float = setting(
        20.0, seconds(0, 86_400), "Seconds running attempts may go on after SIGTERM"
    )
    worker_long_poll_seconds: float = setting(
        20.0, seconds(0, 20), "Seconds one receive from SQS waits for a message"
    )
    retention_seconds: float = setting(
        604_800.0,
        seconds(0, TEN_YEARS_SECONDS),
        "Finished jobs older than this many seconds are pruned; 0 keeps them for ever",
    )
    slo_by_tenant: str = setting(
        "off", settings.SWITCH, "Whether promises are also recorded by tenant, on or off"
    )
    max_payload_bytes: int = setting(262_144, whole(1, 67_108_864), "Largest payload accepted")
    db_pool_max_size: int = setting(10, whole(1, 1000), "Database connections a process may open")
    db_prepared_statements: str = setting(
        "on",
        settings.SWITCH,
        "Prepared statements, on or off; off behind PgBouncer in transaction mode",
    )
    health_port: int | None = setting(
        None, whole(0, 65_535), "Port for /healthz and /readyz; 0 takes a free one", unset="none"
    )
    health_host: str = setting(
        "127.0.0.1",
        settings.HOST,
        "Address of the health port; health checks of ECS ask from inside",
    )
    give_up_seconds: float = setting(
        600.0,
        seconds(0, 86_400),
        "Seconds after which a scheduler or worker that cannot work exits; 0 for never",
    )
    log_level: str = setting("INFO", settings.LEVEL, "Least level that is logged")
    log_format: str = setting("text", settings.FORMAT, "Log lines as text or json")
    sqs_endpoint_url: str | None = setting(
        None,
        settings.TEXT,
        "Where SQS is when it is not AWS's own; allows queue URLs with http",
        variables="AWS_ENDPOINT_URL_SQS AWS_ENDPOINT_URL",
    )
    testing: str = setting(
        "off", settings.SWITCH, "Whether settings that only tests may use are allowed, on or off"
    )
    failpoints: str | None = setting(
        None,
        settings.FAILPOINTS,
        "Where this process is to die, stop, wait or fail, to test what follows from it",
        unset="nowhere",
    )
    origin: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        faulty = settings.problems_of(self, _specs())
        quotas, quota_problems = checked_quotas(
            f"{PREFIX}PER_TENANT_QUOTAS", self.per_tenant_quotas
        )
        use_cases, use_case_problems = _checked_use_cases(self.use_cases)
        tokens, token_problems = checked_tokens(f"{PREFIX}API_TOKENS", self.api_tokens)
        object.__setattr__(self, "api_tokens", tokens)
        object.__setattr__(self, "per_tenant_quotas", MappingProxyType(quotas))
        object.__setattr__(self, "use_cases", MappingProxyType(use_cases))
        if "lease_duration_seconds" not in faulty:
            heartbeat = _heartbeat(self.heartbeat_interval_seconds, self)
            object.__setattr__(self, "heartbeat_interval_seconds", heartbeat)
        related = (rule(self) for fields_read, rule in RELATIONS if not faulty.keys() & fields_read)
        raise_if_any(
            [
                *faulty.values(),
                *token_problems,
                *quota_problems,
                *use_case_problems,
                *chain.from_iterable(related),
            ]
        )

    @classmethod
    def from_env(
        cls, env: Mapping[str, str] = os.environ, *, warn: Warn = _warn
    ) -> AsyncJobsConfig:
        """Read every setting; *warn* is called with a text for each name of ours that is unknown.

        Raises `ConfigError` with all problems. An unset variable means the
        default; a variable set to nothing is a problem (but for the token).
        """
        for text in _unknown_names(env):
            warn(text)
        found = settings.read(_specs(), env, PREFIX)
        use_cases, problems = _read_use_cases(env)
        values: dict[str, Any] = {"db_dsn": None, "use_cases": use_cases}
        values.update((field, value) for field, (_, value) in found.items())
        try:
            config = cls(**values)
        except ConfigError as error:
            problems.extend(error.problems)
        raise_if_any(problems)
        origin = {variable: getattr(config, field) for field, (variable, _) in found.items()}
        return replace(config, origin={**origin, **_use_case_origin(config, env)})

    @property
    def sqs_visibility_timeout_seconds(self) -> int:
        """The visibility timeout as SQS takes it: whole seconds, rounded up."""
        return ceil(self.worker_visibility_timeout_seconds)

    @property
    def prepare_threshold(self) -> int | None:
        """After how many uses psycopg prepares a statement; None for never."""
        return 5 if self.db_prepared_statements == "on" else None

    def use_case(self, name: str) -> UseCaseConfig | None:
        """The use case of this name in any spelling, or None when it is not configured."""
        return self.use_cases.get(canonical_name(name))

    def quota_for(self, tenant_id: str) -> TenantQuota:
        """The tenant's own quota, else that of "*", else no limits."""
        quotas = self.per_tenant_quotas
        return quotas.get(tenant_id) or quotas.get(EVERY_TENANT) or UNLIMITED

    def queues(self) -> Mapping[str, tuple[UseCaseConfig, ...]]:
        """Queue name → the use cases whose jobs travel through it."""
        names = dict.fromkeys(each.queue for each in self.use_cases.values())
        return {
            name: tuple(each for each in self.use_cases.values() if each.queue == name)
            for name in names
        }

    def describe(self) -> tuple[Setting, ...]:
        """Every setting with its meaning, default, present value (secrets masked) and source."""
        specs = _specs()
        own = [self._line(each, self, "") for each in specs]
        of_use_cases = [
            self._line(each, use_case, use_case.name)
            for use_case in self.use_cases.values()
            for each in _use_case_specs()
        ]
        return (own[0], *of_use_cases, *own[1:])

    def _line(self, spec: Spec, owner: object, use_case: str) -> Setting:
        default = _heartbeat(None, self) if spec.field in _DERIVED else spec.default
        return spec.line(getattr(owner, spec.field), default, use_case, self.origin)


_DERIVED = ("heartbeat_interval_seconds",)


def _heartbeat(given: float | None, config: AsyncJobsConfig) -> float:
    return min(30.0, config.lease_duration_seconds / 5) if given is None else given


def _specs() -> tuple[Spec, ...]:
    return settings.specs_of(AsyncJobsConfig, PREFIX + "%(NAME)s")


def _use_case_specs() -> tuple[Spec, ...]:
    return settings.specs_of(UseCaseConfig, PREFIX + "{}_%(NAME)s")


def _checked_use_cases(
    given: Mapping[str, UseCaseConfig],
) -> tuple[dict[str, UseCaseConfig], list[str]]:
    checked = {name: UseCaseConfig(name=name) for name in ALWAYS_PRESENT}
    checked.update((use_case.name, use_case) for use_case in given.values())
    problems = [
        f"use_cases: the key {key!r} holds the use case {use_case.name!r}; make them the same, and "
        "name each use case once"
        for key, use_case in given.items()
        if key != use_case.name
    ]
    return checked, problems


def _read_use_cases(env: Mapping[str, str]) -> tuple[dict[str, UseCaseConfig], list[str]]:
    problems: list[str] = []
    values: dict[str, dict[str, Any]] = {}
    spellings: dict[str, str] = {}
    for variable, spelt, each in _use_case_variables(env):
        name = canonical_name(spelt)
        values.setdefault(name, {})[each.field] = each.read(env[variable])
        if spellings.setdefault(name, spelt) != spelt:
            problems.append(
                f"{variable}: {spelt!r} and {spellings[name]!r} are the same use case; "
                "use one spelling"
            )
    use_cases = {}
    for name, given in values.items():
        try:
            use_cases[name] = UseCaseConfig(name=name, **given)
        except ConfigError as error:
            problems.extend(error.problems)
    return use_cases, problems


def _use_case_variables(env: Mapping[str, str]) -> Iterator[tuple[str, str, Spec]]:
    """(variable, use case as spelt in it, spec) for every variable that sets a use case."""
    known = {variable for each in _specs() for variable in each.variables}
    return settings.find(_use_case_specs(), sorted(env.keys() - known))


def _use_case_origin(config: AsyncJobsConfig, env: Mapping[str, str]) -> dict[str, object]:
    origin = {}
    for _, spelt, each in _use_case_variables(env):
        use_case = config.use_cases[canonical_name(spelt)]
        origin[each.variables[0].format(use_case.name.upper())] = getattr(use_case, each.field)
    return origin


def _unknown_names(env: Mapping[str, str]) -> Iterator[str]:
    known = [variable for each in _specs() for variable in each.variables]
    known += [
        each.variables[0].format(name.upper())
        for name in ALWAYS_PRESENT
        for each in _use_case_specs()
    ]
    of_use_cases = {variable for variable, _, _ in _use_case_variables(env)}
    for name in sorted(env.keys() - of_use_cases - set(known)):
        if name.upper().startswith(PREFIX):
            closest = settings.hint(name.upper(), known, prefix=PREFIX)
            yield f"{name} is no setting of async_jobs and has no effect{closest}"
