"""The example's handlers, called as a worker calls them, with a real mail server."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import examples.handlers
from async_jobs import Bury, Retry, Snooze
from async_jobs.errors import InvalidPayload
from async_jobs.models import JobContext, NewJob
from async_jobs.registry import job_registry, load_handlers
from examples.mail import TEMPLATES, render
from examples.mail_server import Counts, PostOffice, ask_counts
from examples.messages import MESSAGES

ContextOf = Callable[..., JobContext]

FURIOUS = "This is a horrible, disgusting disgrace. I hate you and I am furious!"


async def run(ctx: JobContext, payload: dict[str, Any], type: str = "send_notification") -> Any:
    return await job_registry.handler_for(type)(ctx, payload)


def order_for(recipient: str) -> dict[str, Any]:
    return {
        "recipient": recipient,
        "template": "order",
        "values": {"name": "Ada", "order": "4711"},
    }


def test_the_module_registers_every_handler_of_the_example() -> None:
    load_handlers("examples.handlers")

    assert {
        "label_message",
        "send_digest",
        "send_notification",
        "send_reminder",
        "triage_message",
    } <= set(job_registry.types())


@pytest.mark.usefixtures("mail_port")
async def test_a_notification_reaches_the_mail_server_under_its_tenant(
    office: PostOffice, context: ContextOf
) -> None:
    result = await run(context("clinic"), order_for("ada@mail.example"))

    assert result == {"delivered": "order", "attempt": 1}
    assert office.delivered == {"clinic": 1}


@pytest.mark.usefixtures("mail_port")
async def test_a_notification_may_be_a_bare_message(office: PostOffice, context: ContextOf) -> None:
    await run(context(), {"recipient": "user@example.com", "message": "Hello!"})

    assert office.delivered == {"bakery": 1}


@pytest.mark.usefixtures("mail_port")
async def test_a_recipient_refused_for_good_buries_the_job(context: ContextOf) -> None:
    with pytest.raises(Bury, match=re.escape("for good (550)")):
        await run(context(), order_for("ada@closed.example"))


@pytest.mark.usefixtures("mail_port")
@pytest.mark.parametrize(("domain", "code"), [("full.example", 452), ("flaky.example", 451)])
async def test_a_recipient_refused_for_now_asks_for_a_retry_by_the_jobs_own_backoff(
    context: ContextOf, domain: str, code: int
) -> None:
    with pytest.raises(Retry, match=re.escape(f"for now ({code})")) as asked:
        await run(context(), order_for(f"ada@{domain}"))

    assert asked.value.after_seconds is None


async def test_a_mail_server_that_is_away_is_an_ordinary_failure(
    context: ContextOf, mail_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", "1")

    with pytest.raises(OSError, match="refused"):
        await run(context(), order_for("ada@mail.example"))


async def test_a_letter_that_cannot_be_written_is_given_up_at_once(context: ContextOf) -> None:
    with pytest.raises(Bury, match="no such template"):
        await run(context(), {"recipient": "ada@mail.example", "template": "poem", "values": {}})
    with pytest.raises(Bury, match="cannot be written"):
        await run(context(), {**order_for("ada@mail.example"), "values": {"name": "Ada"}})
    with pytest.raises(Bury, match="cannot be written"):
        await run(context(), order_for("ada@mail.example\r\nBcc: eve@mail.example"))


@pytest.mark.usefixtures("mail_port")
async def test_a_second_attempt_sends_the_same_letter_which_the_mail_server_can_tell(
    office: PostOffice, context: ContextOf
) -> None:
    ctx = context()
    await run(ctx, order_for("ada@mail.example"))
    await run(ctx, order_for("ada@mail.example"))

    assert (office.delivered.total(), office.repeated) == (1, 1)


def test_every_template_can_be_rendered_and_none_keeps_a_placeholder(context: ContextOf) -> None:
    names = re.findall(
        r"\$(\w+)", "".join(f"{each.subject} {each.text}" for each in TEMPLATES.values())
    )
    values = dict.fromkeys(names, "X")
    letters = [
        render(name, values, recipient="a@mail.example", tenant_id="t", job_id=context().job_id)
        for name in TEMPLATES
    ]

    assert not any("$" in letter.as_string() for letter in letters)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Absolutely love the new seats in hall 3, so comfortable :)", "positive"),
        ("What time do you open on Saturday?", "neutral"),
        (FURIOUS, "negative"),
    ],
)
async def test_a_message_gets_the_label_of_its_mood(
    context: ContextOf, text: str, label: str
) -> None:
    result = await run(context(), {"message_id": "m1", "text": text}, "label_message")

    assert (label, "m1") == (result["label"], result["message_id"])


def test_the_messages_are_many_and_of_every_mood() -> None:
    labels = {examples.handlers.label_of(examples.handlers.compound(text)) for text in MESSAGES}

    assert {"positive", "neutral", "negative"} == labels
    assert 60 <= len(set(MESSAGES)) == len(MESSAGES)


async def test_a_payload_that_does_not_fit_the_model_never_reaches_the_handler(
    context: ContextOf,
) -> None:
    with pytest.raises(InvalidPayload, match="text"):
        await run(context(), {"message_id": "m1", "text": ""}, "label_message")


async def test_labelling_runs_in_a_thread_of_its_own(
    context: ContextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def noted(text: str) -> float:
        threads.append(threading.current_thread())
        return 0.0

    monkeypatch.setattr(examples.handlers, "compound", noted)
    await run(context(), {"message_id": "m1", "text": "Fine."}, "label_message")

    assert threading.main_thread() not in threads
    assert len(threads) == 1


async def test_an_alarming_message_leads_to_an_alert_for_the_support_desk(
    context: ContextOf, outbox: list[NewJob]
) -> None:
    ctx = context("cinema", type="triage_message")
    result = await run(ctx, {"message_id": "m1", "text": FURIOUS}, "triage_message")

    (alert,) = outbox

    assert (alert.type, alert.use_case) == ("send_notification", "notifications")
    assert (alert.tenant_id, alert.payload["recipient"]) == ("cinema", "support@cinema.example")
    assert alert.dedupe_key == "alert:m1"
    assert "alert_job_id" in result


@pytest.mark.usefixtures("mail_port")
async def test_the_alert_that_triage_enqueues_can_be_delivered(
    context: ContextOf, outbox: list[NewJob], office: PostOffice
) -> None:
    await run(context(), {"message_id": "m1", "text": FURIOUS}, "triage_message")
    await run(context(), dict(outbox[0].payload))

    assert office.delivered == {"bakery": 1}


async def test_a_harmless_message_alerts_nobody(context: ContextOf, outbox: list[NewJob]) -> None:
    await run(context(), {"message_id": "m1", "text": "Delivered on time."}, "triage_message")

    assert outbox == []


@pytest.mark.usefixtures("mail_port")
async def test_a_digest_counts_the_moods_of_its_texts(
    context: ContextOf, office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, object]] = []

    def noted(template: str, values: dict[str, object], **rest: Any) -> Any:
        sent.append(values)
        return render(template, values, **rest)

    monkeypatch.setattr("examples.handlers.render", noted)
    payload = {"recipient": "ada@mail.example", "texts": ["I love it", "I hate it", FURIOUS]}
    await run(context(), payload, "send_digest")

    assert sent == [{"positive": 1, "neutral": 0, "negative": 2, "total": 3}]
    assert office.delivered == {"bakery": 1}


def reminder(*, quiet_for_seconds: float) -> dict[str, Any]:
    return {
        "recipient": "ada@mail.example",
        "name": "Ada",
        "appointment": "tomorrow",
        "quiet_until": (datetime.now(UTC) + timedelta(seconds=quiet_for_seconds)).isoformat(),
    }


async def test_a_reminder_in_quiet_hours_is_snoozed_until_they_end(context: ContextOf) -> None:
    with pytest.raises(Snooze) as asked:
        await run(context(), reminder(quiet_for_seconds=3600), "send_reminder")

    assert 3000 < asked.value.seconds <= 3600


@pytest.mark.usefixtures("mail_port")
async def test_a_reminder_after_quiet_hours_is_delivered(
    context: ContextOf, office: PostOffice
) -> None:
    await run(context(), reminder(quiet_for_seconds=-1), "send_reminder")

    assert office.delivered == {"bakery": 1}


async def test_the_mail_server_tells_its_counts_when_asked(
    context: ContextOf, mail_port: int
) -> None:
    await run(context("clinic"), order_for("ada@mail.example"))
    with pytest.raises(Bury):
        await run(context(), order_for("ada@closed.example"))
    counts = await asyncio.to_thread(ask_counts, "127.0.0.1", mail_port)

    assert counts == Counts({"clinic": 1}, {"closed.example": 1}, repeated=0)
