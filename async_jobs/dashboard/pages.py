"""Each page: a few bounded questions to the job service, then a template."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from async_jobs.access import Identity, Scope
from async_jobs.core.acceptance import NAME_PATTERN
from async_jobs.core.explain import GONE_AFTER_SECONDS
from async_jobs.core.overrides import alive
from async_jobs.dashboard import charts, wording
from async_jobs.dashboard.sessions import FORM_FIELD, Sessions
from async_jobs.errors import JobNotFound, StoreUnavailable
from async_jobs.models import Job, JobStatus
from async_jobs.service import JobService

JobServiceFactory = Callable[[], JobService | Awaitable[JobService]]
Redact = Callable[[Any], Any]

PER_PAGE = 50
DEAD_LOOKED_AT = 500
MOST_IN_ONE_ACTION = 100
FILTERS = ("tenant_id", "use_case", "status", "cursor")
ALERTS = {"page": 0, "ticket": 1, "none": 2}


class Refused(Exception):
    """A page that cannot be shown: its status, and what to say."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(title)
        self.status, self.title, self.text = status, title, text


def environment(prefix: str) -> Environment:
    """The templates, with everything escaped and every misspelt name an error."""
    made = Environment(
        loader=PackageLoader("async_jobs.dashboard"), autoescape=True, undefined=StrictUndefined
    )
    own: dict[str, Any] = {
        "prefix": prefix,
        "duration": wording.duration,
        "share": wording.share,
        "moment": wording.moment,
        "slack": wording.slack,
        "shown_json": wording.shown_json,
        "statuses": [each.value for each in JobStatus],
        "form_field": FORM_FIELD,
    }
    made.globals = {**made.globals, **own}
    return made


class Pages:
    """What the dashboard shows, page by page."""

    def __init__(
        self,
        factory: JobServiceFactory,
        sessions: Sessions,
        *,
        prefix: str,
        redact: Redact,
        signs_in: bool,
    ) -> None:
        self._factory = factory
        self._sessions = sessions
        self._redact = redact
        self._signs_in = signs_in
        self._templates = environment(prefix)

    async def service(self) -> JobService:
        """The job service, made anew if the application likes it so."""
        made = self._factory()
        return await made if inspect.isawaitable(made) else made

    async def overview(self, request: Request, caller: Identity) -> Response:
        """Which promise is in danger, and how much time is left for what waits."""
        if caller.tenant_id is not None:
            return await self.jobs(request, caller)
        service = await self.service()
        found = sorted(await service.slo(), key=lambda each: (ALERTS[each.alert], -each.late_now))
        cards = [
            {"slo": each, "chart": charts.slack_chart(charts.bands(each.demand), each.use_case)}
            for each in found
        ]
        everything = [charts.bands(each.demand) for each in found]
        total = [
            charts.Band(column[0].label, sum(b.jobs for b in column), any(b.cut for b in column))
            for column in zip(*everything, strict=True)
        ]
        return self._shown(
            request,
            caller,
            "overview.html",
            cards=cards,
            chart=charts.slack_chart(total, "All use cases"),
            danger=[each for each in found if each.alert != "none" or each.late_now],
            processes=_standing(await service.processes()),
            paused=_paused(await service.overrides()),
            meter=charts.meter,
            histogram=charts.histogram,
        )

    async def jobs(self, request: Request, caller: Identity) -> Response:
        """Jobs by filter, newest first."""
        asked = _filters(request)
        tenant_id = caller.tenant_id or asked.get("tenant_id")
        page = await (await self.service()).list(
            tenant_id=tenant_id,
            use_case=asked.get("use_case"),
            status=asked.get("status"),
            cursor=_job_id(asked["cursor"]) if "cursor" in asked else None,
            limit=PER_PAGE,
            payloads=False,
        )
        kept = {name: value for name, value in asked.items() if name != "cursor"}
        following = urlencode({**kept, "cursor": str(page.next_cursor)})
        return self._shown(
            request,
            caller,
            "jobs.html",
            jobs=[_line(job) for job in page.jobs],
            asked=asked,
            following=following if page.next_cursor else None,
        )

    async def job(self, request: Request, caller: Identity, job_id: str) -> Response:
        """One job: why it is where it is, and its life so far."""
        service = await self.service()
        job = await service.get(_job_id(job_id), tenant_id=caller.tenant_id)
        why = await service.explain(job.id, tenant_id=caller.tenant_id)
        if caller.tenant_id is not None:
            why = why.for_tenant()
        return self._shown(
            request,
            caller,
            "job.html",
            job=job,
            why=why,
            moments=life_of(job),
            payload=self._redact(job.payload),
            result=self._redact(job.result),
            error=job.last_error,
        )

    async def use_cases(self, request: Request, caller: Identity) -> Response:
        """Capacity, demand and promises of each use case, and who holds its slots."""
        _for_all_tenants(caller)
        service = await self.service()
        overrides = await service.overrides()
        return self._shown(
            request,
            caller,
            "use_cases.html",
            found=await service.slo(tenants=True),
            paused=_paused(overrides),
            scaled={one.use_case: one for one in overrides if one.setting == "capacity"},
            meter=charts.meter,
        )

    async def processes(self, request: Request, caller: Identity) -> Response:
        """Who is alive, and what runs there."""
        _for_all_tenants(caller)
        found = await (await self.service()).processes()
        return self._shown(
            request, caller, "processes.html", found=found, gone_after_seconds=GONE_AFTER_SECONDS
        )

    async def dead(self, request: Request, caller: Identity) -> Response:
        """The newest dead jobs, by type and error."""
        page = await (await self.service()).list(
            tenant_id=caller.tenant_id, status="dead", limit=DEAD_LOOKED_AT, payloads=False
        )
        kinds: dict[tuple[str, str, str], list[Job]] = {}
        for job in page.jobs:
            error = str((job.last_error or {}).get("type", "unknown"))
            kinds.setdefault((job.use_case, job.type, error), []).append(job)
        counted = sorted(kinds.items(), key=lambda one: -len(one[1]))
        return self._shown(
            request,
            caller,
            "dead.html",
            kinds=[(*kind, jobs, Counter(j.tenant_id for j in jobs)) for kind, jobs in counted],
            looked_at=len(page.jobs),
            more=page.next_cursor is not None,
            most=MOST_IN_ONE_ACTION,
        )

    async def audit(self, request: Request, caller: Identity) -> Response:
        """Who did what, newest first."""
        text = request.query_params.get("before_id", "")
        before_id = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
        lines = await (await self.service()).audit(
            before_id=before_id, tenant_id=caller.tenant_id, limit=PER_PAGE
        )
        return self._shown(request, caller, "audit.html", lines=lines, per_page=PER_PAGE)

    def sign_in(self, request: Request, *, wrong: bool = False) -> Response:
        """Asks for a token."""
        return self._shown(request, None, "sign_in.html", status=401 if wrong else 200, wrong=wrong)

    def problem(self, request: Request, caller: Identity | None, error: Exception) -> Response:
        """What to say in place of a page; raises *error* if it is a fault of ours."""
        status, title, text = _said(error)
        return self._shown(request, caller, "problem.html", status=status, title=title, text=text)

    def _shown(
        self,
        request: Request,
        caller: Identity | None,
        template: str,
        status: int = 200,
        **values: Any,
    ) -> Response:
        done = request.query_params.get("done", "")
        page = self._templates.get_template(template).render(
            caller=caller,
            operates=caller is not None and caller.may(Scope.OPERATE),
            signs_in=self._signs_in,
            form=self._sessions.form_text(request),
            here=template.removesuffix(".html"),
            done=done if re.fullmatch(r"[a-z]{1,20}-[0-9]{1,6}", done) else "",
            now=datetime.now(UTC),
            **values,
        )
        return HTMLResponse(page, status)


def life_of(job: Job) -> list[tuple[datetime, str, str]]:
    """What has happened to *job* and what is to come: when, a kind, a sentence; in order."""
    found: list[tuple[datetime | None, str, str]] = [
        (job.created_at, "past", "Enqueued"),
        (job.first_run_at, "past", "Was due first"),
        (job.first_started_at, "past", "Started for the first time"),
        (job.leased_at, "past", "Leased"),
        (job.started_at, "past", f"Attempt {job.attempts} started in {job.worker}"),
        (job.cancel_requested_at, "past", "Asked to end"),
        (job.finished_at, job.status.value, f"Finished: {job.status.value}"),
        (job.deadline_at, "deadline", "Deadline"),
        (None if job.status.is_finished else job.run_at, "due", "Due"),
        (job.lease_expires_at, "due", "The lease runs out"),
    ]
    if job.first_started_at == job.started_at:
        found[2] = (None, "", "")
    return sorted([(at, kind, text) for at, kind, text in found if at is not None])


def _line(job: Job) -> Mapping[str, Any]:
    ended = job.first_started_at or job.started_at or job.finished_at or datetime.now(UTC)
    state = job.status.value
    if job.status is JobStatus.PENDING:
        state = "leased" if job.leased_at else "waiting" if job.due else "scheduled"
    return {"job": job, "state": state, "slack": wording.slack(job.deadline_at, ended),
            "late": job.deadline_at < ended}  # fmt: skip


def _standing(processes: Sequence[Any]) -> Mapping[str, int]:
    gone = sum(one.seen_seconds >= GONE_AFTER_SECONDS for one in processes)
    return {**alive(processes), "gone": gone}


def _paused(overrides: Sequence[Any]) -> Mapping[str, Any]:
    return {one.use_case: one for one in overrides if one.setting == "paused"}


def _filters(request: Request) -> dict[str, str]:
    """The filters that were given; what is no name finds nothing, so it is refused."""
    given = {name: request.query_params.get(name, "").strip() for name in FILTERS}
    asked = {name: value for name, value in given.items() if value}
    for name in ("tenant_id", "use_case"):
        if name in asked and not re.fullmatch(NAME_PATTERN, asked[name]):
            raise Refused(422, "That is no name", f"The filter {name} holds no name.")
    if asked.get("status") not in (None, *JobStatus):
        raise Refused(422, "That is no status", "Choose one of the statuses of the list.")
    return asked


def _job_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Refused(404, "There is no such job", "A job's id is a UUID.") from None


def _for_all_tenants(caller: Identity) -> None:
    if caller.tenant_id is not None:
        text = "This page tells of all tenants, and your token is bound to one."
        raise Refused(403, "Not for this token", text)


def _said(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, Refused):
        return error.status, error.title, error.text
    if isinstance(error, JobNotFound):
        return 404, "There is no such job", "It was pruned, or it never was."
    if isinstance(error, StoreUnavailable):
        text = "Jobs that run go on. The page asks again by itself."
        return 503, "The database does not answer", text
    raise error
