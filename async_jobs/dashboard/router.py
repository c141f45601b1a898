"""The dashboard as a router for any FastAPI application.

    from async_jobs.dashboard.router import create_dashboard_router
    app.include_router(create_dashboard_router(job_service_factory=..., tokens=config.api_tokens))

Pages are made on the server; one small script of ours keeps them fresh. A strict Content Security
Policy allows nothing else: no inline script or style, no other site, no frame around it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from async_jobs.access import ApiToken, Identity, Scope
from async_jobs.api.auth import gate_for
from async_jobs.core.filters import Moved
from async_jobs.dashboard import actions, asked, wording
from async_jobs.dashboard.asked import Refused
from async_jobs.dashboard.pages import JobServiceFactory, Pages, Redact, static_file
from async_jobs.dashboard.sessions import FORM_FIELD, Sessions

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FILES = {"dashboard.css": "text/css", "dashboard.js": "text/javascript"}
_KEPT = {**_HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}

Page = Callable[[Request, Identity], Awaitable[Response]]


def create_dashboard_router(
    job_service_factory: JobServiceFactory,
    require_auth_token: bool = True,
    expected_auth_token: str | Sequence[str] | None = None,
    *,
    tokens: Sequence[ApiToken] = (),
    prefix: str = "/dashboard",
    redact: Redact = wording.redacted,
) -> APIRouter:
    """The router with every page of the dashboard, under *prefix*.

    Visitors sign in with the API's tokens: `read` shows the pages, `operate` has the buttons too,
    and a token bound to one tenant shows that tenant's jobs. *redact* is called with each payload
    and result before it is shown; it masks what sounds like a secret unless told otherwise.

    Raises ConfigError if a token is required and none, or a blank one, is expected.
    """
    gate = gate_for(expected_auth_token, tokens) if require_auth_token else None
    sessions = Sessions(gate, prefix)
    pages = Pages(
        job_service_factory, sessions, prefix=prefix, redact=redact, signs_in=gate is not None
    )
    return _Dashboard(pages, sessions, prefix).router()


class _Dashboard:
    """Routes; each answer has the headers, each page a visitor who may see it."""

    def __init__(self, pages: Pages, sessions: Sessions, prefix: str) -> None:
        self._pages = pages
        self._sessions = sessions
        self._prefix = prefix

    def router(self) -> APIRouter:
        router = APIRouter(prefix=self._prefix, include_in_schema=False)
        shown: dict[str, Page] = {
            "/jobs": self._pages.jobs,
            "/bulk": self._pages.bulk,
            "/use-cases": self._pages.use_cases,
            "/processes": self._pages.processes,
            "/dead": self._pages.dead,
            "/audit": self._pages.audit,
        }
        for path in ("", "/") if self._prefix else ("/",):
            router.add_api_route(path, self._page(self._pages.overview), methods=["GET"])
        for path, page in shown.items():
            router.add_api_route(path, self._page(page), methods=["GET"])
        router.add_api_route("/jobs/{job_id}", self._job, methods=["GET"])
        router.add_api_route("/sign-in", self._ask, methods=["GET"])
        router.add_api_route("/sign-in", self._sign_in, methods=["POST"])
        router.add_api_route("/sign-out", self._sign_out, methods=["POST"])
        router.add_api_route("/static/{name}", self._file, methods=["GET"])
        for name in actions.ACTIONS:
            router.add_api_route(f"/actions/{name}", self._action(name), methods=["POST"])
        return router

    def _page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await self._answer(request, Scope.READ, page)

        return answer

    async def _job(self, request: Request, job_id: str) -> Response:
        return await self._answer(
            request,
            Scope.READ,
            lambda request, caller: self._pages.job(request, caller, job_id),
        )

    def _action(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def act(request: Request, caller: Identity) -> Response:
            form = await actions.read_form(request)
            self._check_form(request, form)
            changed = await actions.run(name, await self._pages.service(), caller, form)
            if changed.cursor is not None:
                return self._go_on(form, name, changed)
            return self._back(form, f"{name.removesuffix('-all')}-{changed.jobs}")

        async def answer(request: Request) -> Response:
            return await self._answer(request, Scope.OPERATE, act)

        return answer

    async def _answer(self, request: Request, scope: Scope, page: Page) -> Response:
        caller = self._sessions.identify(request)
        if caller is None:
            return self._headed(RedirectResponse(f"{self._prefix}/sign-in", 303))
        try:
            if not caller.may(scope):
                text = f"Your token needs the scope {scope}."
                raise Refused(403, "Not for this token", text)
            return self._headed(await page(request, caller))
        except Exception as error:
            return self._headed(self._pages.problem(request, caller, error))

    async def _ask(self, request: Request) -> Response:
        return self._headed(self._pages.sign_in(request))

    async def _sign_in(self, request: Request) -> Response:
        try:
            form = await actions.read_form(request)
            self._check_form(request, form)
        except Refused as error:
            return self._headed(self._pages.problem(request, None, error))
        token = form.get("token", [""])[0].strip()
        if self._sessions.identity_of(token) is None:
            return self._headed(self._pages.sign_in(request, wrong=True))
        answer = RedirectResponse(f"{self._prefix}/", 303)
        self._sessions.begin(answer, token, secure=request.url.scheme == "https")
        return self._headed(answer)

    async def _sign_out(self, request: Request) -> Response:
        answer = RedirectResponse(f"{self._prefix}/sign-in", 303)
        self._sessions.end(answer)
        return self._headed(answer)

    async def _file(self, name: str) -> Response:
        if name not in _FILES:
            return self._headed(Response("", 404))
        return Response(static_file(name), media_type=_FILES[name], headers=_KEPT)

    def _check_form(self, request: Request, form: actions.Form) -> None:
        if not self._sessions.is_ours(request, form.get(FORM_FIELD, [""])[0]):
            text = "It was not sent from a page of this dashboard, or the page is too old."
            raise Refused(403, "The form is not ours", text)

    def _back(self, form: actions.Form, done: str) -> Response:
        """To the page the form stood on; only ever to one of ours."""
        page = form.get("back", [""])[0]
        known = page if page in ("jobs", "use-cases", "processes", "dead") else ""
        if page == "job" and len(ids := form.get("job_id", [])) == 1:
            known = f"jobs/{ids[0]}"
        return RedirectResponse(f"{self._prefix}/{known}?done={done}", 303)

    def _go_on(self, form: actions.Form, name: str, moved: Moved) -> Response:
        """Back to the count: there may be more than one action takes."""
        verb = name.removesuffix("-all")
        query = {each: form[each][0] for each in asked.NAMES if form.get(each)}
        query |= {"move": verb, "cursor": str(moved.cursor), "done": f"{verb}-{moved.jobs}"}
        return RedirectResponse(f"{self._prefix}/bulk?{urlencode(query)}", 303)

    def _headed(self, answer: Response) -> Response:
        answer.headers.update(_HEADERS)
        return answer
