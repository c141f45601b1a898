"""How every request to our endpoints is received: token first, then scope, size and JSON.

The router lives in other people's applications, so nothing here is installed on
the application: `JobsRoute` wraps only the endpoints it is the route class of.

    token    before a single byte of the content is read, and so is its scope
    size     reading stops at the limit, whatever Content-Length says; few large requests are
             read at a time, so that fifty of them cannot fill the memory; none for ever
    JSON     strict: UTF-8 (a byte order mark is skipped), every name once in its object
    errors   what the caller caused becomes a problem; the rest stays an exception
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from async_jobs.access import Scope
from async_jobs.api.auth import Gate, identify
from async_jobs.api.problems import Refusal, answer_for, forbidden, unauthorized
from async_jobs.telemetry.trace_context import calling

READ_TIMEOUT_SECONDS = 30.0
SMALL_BYTES = 65_536
LARGE_READS = 8


class JobsRequest(Request):
    """A request whose content is bounded in size and strict in form."""

    most_bytes: int = 0
    large_reads: asyncio.Semaphore

    async def body(self) -> bytes:
        """The whole content; raises Refusal: 413 beyond the limit, 415 if it is not JSON."""
        if not hasattr(self, "_body"):
            self._body = await self._bounded_content()
            self._check_kind()
            if not self._body:
                raise _invalid_json("is empty")
        return self._body

    def _check_kind(self) -> None:
        kinds = self.headers.getlist("content-type")
        if len(kinds) != 1 or not _is_json(kinds[0]):
            raise _unsupported("content-type", "must be application/json, in UTF-8")
        if self.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise _unsupported("content-encoding", "must be left out: send plain JSON")

    async def json(self) -> Any:
        """The content as JSON; raises Refusal."""
        return read_json(await self.body())

    async def _bounded_content(self) -> bytes:
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > self.most_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                return await self._content()
        except TimeoutError:
            raise Refusal(408, ["body"], "request_timeout", "did not arrive in time") from None

    async def _content(self) -> bytes:
        content = bytearray()
        is_large = False
        try:
            async for chunk in self.stream():
                content += chunk
                if len(content) > self.most_bytes:
                    raise self._too_large()
                if not is_large and len(content) > SMALL_BYTES:
                    await self.large_reads.acquire()
                    is_large = True
        finally:
            if is_large:
                self.large_reads.release()
        return bytes(content)

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            ["body"],
            "too_large",
            f"is larger than {self.most_bytes} bytes; store the data elsewhere and send a "
            "reference",
        )


class JobsRoute(APIRoute):
    """A route whose refusals are problems. Use `route_class` to make one for a router."""

    gate: ClassVar[Gate | None] = None
    scope: ClassVar[Scope | None] = None
    most_bytes: ClassVar[int] = 0
    large_reads: ClassVar[asyncio.Semaphore]

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            identity = identify(self.gate, request)
            if identity is None:
                return unauthorized()
            if self.scope is not None and not identity.may(self.scope):
                return forbidden(self.scope)
            bounded = JobsRequest(request.scope, request.receive)
            bounded.most_bytes = self.most_bytes
            bounded.large_reads = self.large_reads
            try:
                with calling(bounded.headers):
                    return await handle(bounded)
            except Exception as error:
                if refused := answer_for(error):
                    return refused
                raise

        return answer


def route_class(gate: Gate | None, most_bytes: int, scope: Scope | None = None) -> type[JobsRoute]:
    """The route class of one router: FastAPI makes its instances, so settings are on the class.

    Without a *scope* every token that *gate* knows is good enough.
    """
    settings = {
        "gate": gate,
        "scope": scope,
        "most_bytes": most_bytes,
        "large_reads": asyncio.Semaphore(LARGE_READS),
    }
    return type("JobsRoute", (JobsRoute,), settings)


def read_json(content: bytes) -> Any:
    """The JSON value in *content*; numbers that are not finite are left for the rules to refuse.

    Raises Refusal `invalid_json`, or `too_deep` where Python itself gives up.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_each_name_once)
    except RecursionError:
        raise Refusal(422, ["body"], "too_deep", "is nested too deep") from None
    except UnicodeDecodeError:
        raise _invalid_json("is not UTF-8") from None
    except ValueError:
        raise _invalid_json("is not JSON, or names something twice in one object") from None


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _invalid_json(reason: str) -> Refusal:
    return Refusal(422, ["body"], "invalid_json", reason)


def _unsupported(header: str, message: str) -> Refusal:
    return Refusal(415, ["header", header], "unsupported_media_type", message)


def _is_json(content_type: str) -> bool:
    kind, _, rest = content_type.lower().partition(";")
    kind = kind.strip()
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]*)", rest)
    in_utf8 = charset is None or charset[1] in ("utf-8", "utf8")
    is_json = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    return is_json and in_utf8
