"""What operators may do from the pages. Each leaves a line in the audit.

Every action is a POST of one of the dashboard's own forms by a caller with the scope `operate`,
and answers with a redirect, so that a reload repeats nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from fastapi import Request

from async_jobs.access import Identity
from async_jobs.core.acceptance import NAME_PATTERN
from async_jobs.core.filters import Moved, Verb
from async_jobs.core.overrides import TENANT_SETTINGS
from async_jobs.dashboard import asked
from async_jobs.dashboard.asked import Refused
from async_jobs.dashboard.pages import MOST_IN_ONE_ACTION
from async_jobs.errors import InvalidJob, JobNotFound, MoveRefused, UnknownUseCase
from async_jobs.service import JobService

MOST_FORM_BYTES = 64 * 1024
Form = Mapping[str, list[str]]
Act = Callable[[JobService, Identity, Form], Awaitable[int | Moved]]


async def read_form(request: Request) -> Form:
    """The fields of a form; raises Refused if it is too large or cannot be read."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_FORM_BYTES:
            raise Refused(413, "That is too much", "Choose fewer jobs at a time.")
    try:
        return parse_qs(content.decode(), keep_blank_values=True, max_num_fields=1_000)
    except ValueError:
        raise Refused(422, "The form cannot be read", "Go back and try once more.") from None


async def cancel(service: JobService, caller: Identity, form: Form) -> int:
    """Cancel the jobs named; how many are cancelled now, or will be."""
    return await _each(
        form,
        lambda job_id: service.cancel(job_id, tenant_id=caller.tenant_id, actor=actor(caller)),
    )


async def requeue(service: JobService, caller: Identity, form: Form) -> int:
    """Requeue the jobs named; how many it took effect on."""
    return await _each(
        form,
        lambda job_id: service.requeue(job_id, tenant_id=caller.tenant_id, actor=actor(caller)),
    )


async def pause(service: JobService, caller: Identity, form: Form) -> int:
    """Pause a use case."""
    return await service.pause(_one(form, "use_case"), actor=actor(caller))


async def resume(service: JobService, caller: Identity, form: Form) -> int:
    """Resume a use case."""
    return await service.resume(_one(form, "use_case"), actor=actor(caller))


async def scale(service: JobService, caller: Identity, form: Form) -> int:
    """Set a capacity; an empty field takes it back."""
    text = form.get("capacity", [""])[0].strip()
    if text and not (text.isascii() and text.isdigit()):
        raise Refused(422, "That is no capacity", "Give a whole number, or nothing.")
    capacity = int(text[:9]) if text else None
    return await service.scale(_one(form, "use_case"), capacity, actor=actor(caller))


async def stop(service: JobService, caller: Identity, form: Form) -> int:
    """Ask a process to stop."""
    return await service.stop_process(_one(form, "name"), actor=actor(caller))


async def quota(service: JobService, caller: Identity, form: Form) -> int:
    """Set what a tenant may have; an empty field takes that setting back."""
    tenant_id = _one(form, "tenant_id")
    if not re.fullmatch(NAME_PATTERN, tenant_id):
        raise Refused(422, "That is no tenant", "Give a tenant's name, as its jobs have it.")
    settings = {name: _number(form, name) for name in TENANT_SETTINGS if name in form}
    return await service.set_quota(tenant_id, actor=actor(caller), **settings)


async def cancel_all(service: JobService, caller: Identity, form: Form) -> Moved:
    """Cancel all that matches the form's filter."""
    return await _all("cancel", service, caller, form)


async def requeue_all(service: JobService, caller: Identity, form: Form) -> Moved:
    """Requeue all that matches the form's filter."""
    return await _all("requeue", service, caller, form)


async def _all(verb: Verb, service: JobService, caller: Identity, form: Form) -> Moved:
    texts = {name: values[0] for name, values in form.items()}
    wanted = asked.of_texts(texts, caller)
    if verb not in asked.verbs(wanted):
        raise Refused(422, "That does not fit", f"Jobs of that status take no {verb}.")
    cursor = texts.get("cursor")
    return await service.matching.move(
        verb,
        wanted,
        enqueued_before=_previewed_at(texts.get("previewed_at", "")),
        actor=actor(caller),
        cursor=asked.job_id_of(cursor) if cursor else None,
    )


def _previewed_at(text: str) -> datetime:
    """When the count was shown: what was enqueued later, nobody has agreed to."""
    try:
        return min(datetime.fromisoformat(text).astimezone(UTC), datetime.now(UTC))
    except (ValueError, OverflowError):
        raise Refused(422, "The form cannot be read", "Look at the count once more.") from None


def _number(form: Form, name: str) -> float | None:
    text = form[name][0].strip()
    if not text:
        return None
    whole = name not in ("weight", "rate_per_second")
    if not re.fullmatch(r"[0-9]{1,9}" if whole else r"[0-9]{1,9}(\.[0-9]{1,6})?", text, re.ASCII):
        kind = "whole number" if whole else "number"
        raise Refused(422, f"That is no {name}", f"Give a {kind}, or nothing.")
    return int(text) if whole else float(text)


ACTIONS: Mapping[str, tuple[Act, bool]] = {
    "cancel": (cancel, True),
    "requeue": (requeue, True),
    "pause": (pause, False),
    "resume": (resume, False),
    "scale": (scale, False),
    "quota": (quota, False),
    "cancel-all": (cancel_all, True),
    "requeue-all": (requeue_all, True),
    "stop": (stop, False),
}
"""By name: what it does, and whether a token bound to one tenant may."""


async def run(name: str, service: JobService, caller: Identity, form: Form) -> Moved:
    """Take the action; how many things it changed. Raises Refused if it cannot be taken."""
    act, for_bound = ACTIONS[name]
    if caller.tenant_id is not None and not for_bound:
        raise Refused(403, "Not for this token", "This concerns all tenants.")
    try:
        changed = await act(service, caller, form)
        return changed if isinstance(changed, Moved) else Moved(int(changed), None)
    except (InvalidJob, UnknownUseCase) as error:
        raise Refused(422, "That does not fit", str(error)) from None


def actor(caller: Identity) -> str:
    """Who it was, for the audit."""
    return f"dashboard:{caller.name}"


def _one(form: Form, field: str) -> str:
    values = form.get(field, [])
    if len(values) != 1:
        raise Refused(422, "The form cannot be read", f"It needs one {field}.")
    return values[0]


async def _each(form: Form, act: Callable[[UUID], Awaitable[Any]]) -> int:
    """What raced ahead of the operator is left as it is."""
    done = 0
    for text in form.get("job_id", [])[:MOST_IN_ONE_ACTION]:
        try:
            await act(UUID(text))
            done += 1
        except ValueError:
            raise Refused(422, "The form cannot be read", "A job's id is a UUID.") from None
        except (JobNotFound, MoveRefused):
            continue
    return done
