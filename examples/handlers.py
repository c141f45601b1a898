"""The handlers of the example; a worker finds them by ASYNC_JOBS_HANDLERS_MODULE=examples.handlers.

Each shows one thing beside its work:

    send_notification   a plain function: it blocks on SMTP, so it runs in a thread
    send_digest         a payload declared as a dataclass
    send_reminder       Snooze: not now, call me later, and give the attempt back
    label_message       a payload declared as a pydantic model
    triage_message      `ctx.enqueue`: a job that leads to another

A job may run more than once, so each handler may be repeated: letters carry the
job's id as their Message-ID, labels are computed anew, and the follow-up job
has a dedupe_key.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, BaseModel, Field

from async_jobs import Snooze
from async_jobs.models import JobContext
from async_jobs.registry import job_registry
from examples.mail import deliver, render

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

POSITIVE_FROM = 0.05
NEGATIVE_TO = -0.05
ALARMING_TO = -0.6


@dataclass(frozen=True)
class Digest:
    """What `send_digest` takes."""

    recipient: str
    texts: list[str]


class Reminder(BaseModel):
    """What `send_reminder` takes; nothing is sent before `quiet_until`."""

    recipient: str
    name: str
    appointment: str
    quiet_until: AwareDatetime


class Message(BaseModel):
    """What `label_message` and `triage_message` take."""

    message_id: str
    text: str = Field(min_length=1, max_length=10_000)


@job_registry.handler("send_notification")
def send_notification(ctx: JobContext, payload: dict[str, Any]) -> dict[str, object]:
    """Mail `payload["template"]` filled with `payload["values"]`, or just `payload["message"]`."""
    template = payload.get("template", "plain")
    values = payload.get("values") or {"message": payload.get("message", "")}
    return _send(ctx, template, values, payload["recipient"])


@job_registry.handler("send_digest")
def send_digest(ctx: JobContext, digest: Digest) -> dict[str, object]:
    """Mail how many of the day's messages were positive, neutral and negative."""
    counted = Counter(label_of(compound(text)) for text in digest.texts)
    values = {label: counted[label] for label in ("positive", "neutral", "negative")}
    return _send(ctx, "digest", {**values, "total": len(digest.texts)}, digest.recipient)


@job_registry.handler("send_reminder")
async def send_reminder(ctx: JobContext, reminder: Reminder) -> dict[str, object]:
    """Mail a reminder, but leave people alone in their quiet hours."""
    quiet_seconds = (reminder.quiet_until - datetime.now(UTC)).total_seconds()
    if quiet_seconds > 0:
        raise Snooze(quiet_seconds)
    values = {"name": reminder.name, "appointment": reminder.appointment}
    return await asyncio.to_thread(_send, ctx, "reminder", values, reminder.recipient)


@job_registry.handler("label_message")
def label_message(ctx: JobContext, message: Message) -> dict[str, object]:
    """Label one message as positive, neutral or negative."""
    label = _labelled(message, compound(message.text))
    ctx.log.debug("message %s is %s", message.message_id, label["label"])
    return label


@job_registry.handler("triage_message")
async def triage_message(ctx: JobContext, message: Message) -> dict[str, object]:
    """Label one message, and alert the tenant's support desk if it is alarming."""
    score = await asyncio.to_thread(compound, message.text)
    label = _labelled(message, score)
    if score > ALARMING_TO:
        return label
    alert = await ctx.enqueue(
        "send_notification",
        {
            "recipient": f"support@{ctx.tenant_id}.example",
            "template": "alert",
            "values": {**label, "text": message.text},
        },
        use_case="notifications",
        delay_tolerance_seconds=30,
        priority=10,
        dedupe_key=f"alert:{message.message_id}",
    )
    return {**label, "alert_job_id": str(alert.job_id)}


def compound(text: str) -> float:
    """How the text feels, from -1 (awful) to 1 (wonderful), as VADER's lexicon has it."""
    return float(_analyzer().polarity_scores(text)["compound"])


def label_of(score: float) -> str:
    """The label that VADER's authors give to a compound score."""
    if score >= POSITIVE_FROM:
        return "positive"
    return "negative" if score <= NEGATIVE_TO else "neutral"


def _labelled(message: Message, score: float) -> dict[str, object]:
    return {"message_id": message.message_id, "label": label_of(score), "compound": score}


def _send(
    ctx: JobContext, template: str, values: dict[str, Any], recipient: str
) -> dict[str, object]:
    letter = render(
        template, values, recipient=recipient, tenant_id=ctx.tenant_id, job_id=ctx.job_id
    )
    deliver(letter)
    return {"delivered": template, "attempt": ctx.attempt}


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    """The lexicon, read at the first use: a worker that only sends mail never loads it."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
