"""Who looks at the dashboard, and whether a form was really sent from it.

    session   a cookie that holds the token: HttpOnly, SameSite=Strict, for the dashboard's paths
              only. It is checked on every request by the gate of the API.
    form      carries a text made of the session and a secret of this server; and the browser must
              say that it comes from the same site. Other sites know neither.

Where no token is asked for, everybody may do everything, and the forms are guarded all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from fastapi import Request, Response

from async_jobs.access import Identity, digest_of
from async_jobs.api.auth import ANYBODY, Gate

COOKIE = "async_jobs_session"
FORM_FIELD = "form"
LONGEST_TOKEN = 4_096
DAY_SECONDS = 86_400


class Sessions:
    """Sessions of one dashboard; *gate* None lets everybody in."""

    def __init__(self, gate: Gate | None, path: str) -> None:
        self._gate = gate
        self._path = path or "/"
        self._secret = secrets.token_bytes(32)

    def identify(self, request: Request) -> Identity | None:
        """Who looks; None if nobody known."""
        if self._gate is None:
            return ANYBODY
        return self.identity_of(request.cookies.get(COOKIE, ""))

    def identity_of(self, token: str) -> Identity | None:
        """Whose *token* this is."""
        if self._gate is None:
            return ANYBODY
        shown = token.encode("utf-8", "replace")[:LONGEST_TOKEN]
        return self._gate.identify([(b"authorization", b"Bearer " + shown)])

    def begin(self, answer: Response, token: str, *, secure: bool) -> None:
        """Keep *token* in the browser, for a day."""
        answer.set_cookie(
            COOKIE,
            token,
            max_age=DAY_SECONDS,
            path=self._path,
            secure=secure,
            httponly=True,
            samesite="strict",
        )

    def end(self, answer: Response) -> None:
        """Forget it."""
        answer.delete_cookie(COOKIE, path=self._path)

    def form_text(self, request: Request) -> str:
        """What a form of this session carries.

        It is derived from the token, so that every replica behind one address accepts it.
        """
        token = request.cookies.get(COOKIE, "")
        key = digest_of(token.encode()) if self._gate is not None else self._secret
        return hmac.new(key, b"async_jobs dashboard form", hashlib.sha256).hexdigest()

    def is_ours(self, request: Request, shown: str) -> bool:
        """Whether a form with the text *shown* was sent from a page of this session."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site is not None and site != "same-origin":
            return False
        here = request.headers.get("host")
        if site is None and origin is not None and urlsplit(origin).netloc != here:
            return False
        return hmac.compare_digest(shown.encode(), self.form_text(request).encode())
