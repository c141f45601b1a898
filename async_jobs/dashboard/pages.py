"""Each page: a few bounded questions to the job service, then a template."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from async_jobs.access import Identity, Scope
from async_jobs.core.demand import Band, bands
from async_jobs.core.explain import GONE_AFTER_SECONDS
from async_jobs.core.filters import STATES, JobFilter
from async_jobs.core.overrides import TENANT_SETTINGS, alive
from async_jobs.dashboard import asked, charts, wording
from async_jobs.dashboard.asked import Refused
from async_jobs.dashboard.sessions import FORM_FIELD, Sessions
from async_jobs.errors import InvalidJob, JobNotFound, StoreUnavailable
from async_jobs.matching import MOST_COUNTED, movable
from async_jobs.models import Job, JobStatus
from async_jobs.service import JobService

JobServiceFactory = Callable[[], JobService | Awaitable[JobService]]
Redact = Callable[[Any], Any]

PER_PAGE = 50
DEAD_LOOKED_AT = 500
MOST_MESSAGES = 20
MOST_IN_ONE_ACTION = 100
INSUFFICIENT_PRIVILEGE = "42501"
ALERTS = {"page": 0, "ticket": 1, "none": 2}


@cache
def static_file(name: str) -> bytes:
    """One of the files beside the pages."""
    return files("async_jobs.dashboard").joinpath("static", name).read_bytes()


def place_of(prefix: str, name: str) -> str:
    """Where a page finds such a file: an address that changes with it, so that browsers keep it."""
    return f"{prefix}/static/{name}?{hashlib.sha256(static_file(name)).hexdigest()[:12]}"


def environment(prefix: str) -> Environment:
    """The templates, with everything escaped and every misspelt name an error."""
    made = Environment(
        loader=PackageLoader("async_jobs.dashboard"), autoescape=True, undefined=StrictUndefined
    )
    own: dict[str, Any] = {
        "prefix": prefix,
        "styles": place_of(prefix, "dashboard.css"),
        "script": place_of(prefix, "dashboard.js"),
        "duration": wording.duration,
        "share": wording.share,
        "moment": wording.moment,
        "slack": wording.slack,
        "shown_json": wording.shown_json,
        "statuses": STATES,
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
            {"slo": each, "chart": charts.slack_chart(bands(each.demand), each.use_case)}
            for each in found
        ]
        everything = [bands(each.demand) for each in found]
        total = [
            Band(column[0].label, sum(b.jobs for b in column), any(b.cut for b in column))
            for column in zip(*everything, strict=True)
        ]
        return self._shown(
            request,
            caller,
            "overview.html",
            cards=cards,
            chart=charts.slack_chart(total, "All use cases"),
            danger=[each for each in found if each.alert != "none" or each.late_now],
            timeline=charts.timeline(await service.slo_minutes()),
            processes=_standing(await service.processes()),
            paused=_paused(await service.overrides()),
            meter=charts.meter,
            histogram=charts.histogram,
        )

    async def jobs(self, request: Request, caller: Identity) -> Response:
        """Jobs by filter, newest first."""
        wanted, cursor = asked.of_query(request, caller)
        service = await self.service()
        jobs, found = await service.matching.page(wanted, cursor=cursor, most=PER_PAGE)
        now = datetime.now(UTC)
        return self._shown(
            request,
            caller,
            "jobs.html",
            jobs=[_line(job, now) for job in jobs],
            asked=wanted.told(),
            wanted=wanted,
            address=asked.address(wanted),
            following=asked.address(wanted, found.cursor) if found.cursor else None,
            looked_through=found.looked_through,
            verbs=asked.verbs(wanted),
        )

    async def bulk(self, request: Request, caller: Identity) -> Response:
        """How many jobs a move on all that matches would take, before anybody presses it."""
        verb = asked.verb_of(request.query_params.get("move", ""))
        if not caller.may(Scope.OPERATE):
            raise Refused(403, "Not for this token", "Your token needs the scope operate.")
        wanted, cursor = asked.of_query(request, caller)
        if verb not in asked.verbs(wanted):
            raise Refused(422, "That does not fit", f"Jobs of that status take no {verb}.")
        found = await (await self.service()).matching.count(verb, wanted, cursor=cursor)
        return self._shown(
            request,
            caller,
            "bulk.html",
            verb=verb,
            wanted=movable(verb, wanted),
            fields={**wanted.told(), **({"cursor": str(cursor)} if cursor else {})},
            found=found,
            most=MOST_COUNTED,
            back=asked.address(wanted),
        )

    async def job(self, request: Request, caller: Identity, job_id: str) -> Response:
        """One job: why it is where it is, and its life so far."""
        service = await self.service()
        job = await service.get(asked.job_id_of(job_id), tenant_id=caller.tenant_id)
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
            error=self._error(job),
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
            quotas=_quotas(overrides),
            settings=TENANT_SETTINGS,
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
        wanted = JobFilter(status="dead", tenant_id=caller.tenant_id)
        cursor = asked.cursor_of(request)
        service = await self.service()
        jobs, found = await service.matching.page(wanted, cursor=cursor, most=DEAD_LOOKED_AT)
        kinds: dict[tuple[str, str, str], list[Job]] = {}
        for job in jobs:
            error = str((job.last_error or {}).get("type", ""))
            kinds.setdefault((job.use_case, job.type, error), []).append(job)
        counted = sorted(kinds.items(), key=lambda one: -len(one[1]))
        told = {
            kind: self._error(await service.get(alike[0].id, tenant_id=caller.tenant_id))
            for kind, alike in counted[:MOST_MESSAGES]
        }
        return self._shown(
            request,
            caller,
            "dead.html",
            kinds=[self._dead_kind(*kind, jobs, told.get(kind)) for kind, jobs in counted],
            looked_at=len(jobs),
            looked_through=found.looked_through,
            following=found.cursor,
            most=MOST_IN_ONE_ACTION,
        )

    def _dead_kind(
        self,
        use_case: str,
        kind: str,
        error: str,
        jobs: Sequence[Job],
        told: Mapping[str, Any] | None,
    ) -> Mapping[str, Any]:
        """Dead jobs of one type with one error, and where all of them can be moved."""
        try:
            alike = JobFilter(status="dead", use_case=use_case, type=kind, error=error or None)
            every = asked.address(alike)
        except InvalidJob:
            every = None  # written past the library: no filter can name it
        return {
            "use_case": use_case,
            "type": kind,
            "error": error or "unknown",
            "message": (told or {}).get("message", ""),
            "jobs": jobs,
            "tenants": Counter(job.tenant_id for job in jobs),
            "every": every,
        }

    async def audit(self, request: Request, caller: Identity) -> Response:
        """Who did what, newest first."""
        text = request.query_params.get("before_id", "")
        before_id = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
        lines = await (await self.service()).audit(
            before_id=before_id, tenant_id=caller.tenant_id, limit=PER_PAGE
        )
        return self._shown(request, caller, "audit.html", lines=lines, per_page=PER_PAGE)

    def _error(self, job: Job) -> Mapping[str, Any] | None:
        """The last error as it may be shown: what is masked in the payload is masked here too."""
        if job.last_error is None:
            return None
        hidden = wording.hidden_texts(job.payload, self._redact(job.payload))
        shown = wording.redacted(self._redact(wording.without(job.last_error, hidden)))
        return shown if isinstance(shown, Mapping) else {"message": str(shown)}

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
        (None if job.first_run_at == job.run_at else job.first_run_at, "past", "Was due first"),
        (None if job.status.is_finished else job.run_at, "due", "Due"),
        (job.first_started_at, "past", "Started for the first time"),
        (job.leased_at, "past", "Leased"),
        (job.started_at, "past", f"Attempt {job.attempts} started in {job.worker}"),
        (job.cancel_requested_at, "past", "Asked to end"),
        (job.finished_at, job.status.value, f"Finished: {job.status.value}"),
        (job.deadline_at, "deadline", "Deadline"),
        (job.lease_expires_at, "due", "The lease runs out"),
    ]
    if job.first_started_at == job.started_at:
        found[3] = (None, "", "")
    told = [(at, kind, text) for at, kind, text in found if at is not None]
    return sorted(told, key=lambda one: one[0])


def _line(job: Job, now: datetime) -> Mapping[str, Any]:
    state, ended = job.status.value, job.first_started_at or job.started_at or job.finished_at
    promised = (job.first_run_at or job.run_at) + job.delay_tolerance
    if job.status is JobStatus.PENDING:
        state = "leased" if job.leased_at else "waiting" if job.due else "scheduled"
        ended, promised = None, job.deadline_at
    at = ended or now
    return {"job": job, "state": state, "slack": wording.slack(promised, at), "late": promised < at}


def _standing(processes: Sequence[Any]) -> Mapping[str, int]:
    gone = sum(one.seen_seconds >= GONE_AFTER_SECONDS for one in processes)
    return {**alive(processes), "gone": gone}


def _quotas(overrides: Sequence[Any]) -> Mapping[str, Mapping[str, Any]]:
    """What operators have set for tenants: by tenant, setting by setting."""
    found: dict[str, dict[str, Any]] = {}
    for one in overrides:
        if one.tenant_id:
            found.setdefault(one.tenant_id, {})[one.setting] = one.value
    return found


def _paused(overrides: Sequence[Any]) -> Mapping[str, Any]:
    return {one.use_case: one for one in overrides if one.setting == "paused"}


def _for_all_tenants(caller: Identity) -> None:
    if caller.tenant_id is not None:
        text = "This page tells of all tenants, and your token is bound to one."
        raise Refused(403, "Not for this token", text)


def _said(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, Refused):
        return error.status, error.title, error.text
    if isinstance(error, InvalidJob):
        return 422, "That filter cannot be", f"{error}."
    if isinstance(error, JobNotFound):
        return 404, "There is no such job", "It was pruned, or it never was."
    if getattr(error, "sqlstate", None) == INSUFFICIENT_PRIVILEGE:
        text = "The user it connects as lacks the role async_jobs_operator of deploy/roles.sql."
        return 403, "The database refuses that to the dashboard", text
    if isinstance(error, StoreUnavailable):
        text = "Jobs that run go on. The page asks again by itself."
        return 503, "The database does not answer", text
    raise error
