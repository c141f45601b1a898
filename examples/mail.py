"""Letters: from a template to the mail server. The handlers call it, always from a thread.

`render` is pure. `deliver` speaks SMTP with the server that SMTP_HOST and
SMTP_PORT name and tells for good from for now: a refusal that will not change
raises Bury, one that may change raises Retry, and a server that does not answer
raises what smtplib raises, which the worker retries like any failure.
"""

from __future__ import annotations

import os
import smtplib
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from string import Template
from uuid import UUID

from async_jobs import Bury, Retry

SENDER = "no-reply@async-jobs.example"
ANSWER_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LetterTemplate:
    """A subject and a text with `$names` in them."""

    subject: str
    text: str


TEMPLATES = {
    "plain": LetterTemplate("A message for you", "$message\n"),
    "sign_in": LetterTemplate(
        "Your sign-in code", "Hello $name,\n\nyour code is $code. It is good for ten minutes.\n"
    ),
    "order": LetterTemplate(
        "Order $order is on its way",
        "Hello $name,\n\nwe have handed order $order to the carrier.\n\nThank you!\n",
    ),
    "newsletter": LetterTemplate(
        "What is new this week", "Hello $name,\n\nhere is what others say:\n\n  $quote\n"
    ),
    "alert": LetterTemplate(
        "A customer needs you",
        "Message $message_id was labelled $label ($compound):\n\n  $text\n\nPlease answer soon.\n",
    ),
    "digest": LetterTemplate(
        "$total messages today", "positive $positive\nneutral  $neutral\nnegative $negative\n"
    ),
    "reminder": LetterTemplate("See you soon", "Hello $name,\n\nwe expect you $appointment.\n"),
}


def render(
    template: str,
    values: Mapping[str, object],
    *,
    recipient: str,
    tenant_id: str,
    job_id: UUID,
) -> EmailMessage:
    """The letter that *template* gives with *values*; raises Bury if it cannot be written.

    Its Message-ID comes from the job, so that every attempt writes the same
    letter and a mailbox can tell a repeat.
    """
    if template not in TEMPLATES:
        raise Bury(f"There is no such template. Known: {', '.join(TEMPLATES)}.")
    chosen = TEMPLATES[template]
    letter = EmailMessage()
    try:
        subject = Template(chosen.subject).substitute(values)
        letter["Subject"] = " ".join(subject.split())
        letter["To"] = recipient
        letter.set_content(Template(chosen.text).substitute(values))
    except (KeyError, ValueError) as error:
        raise Bury(f"The letter cannot be written: {type(error).__name__}.") from None
    letter["From"] = SENDER
    letter["Date"] = formatdate()
    letter["Message-ID"] = f"<{job_id}@async-jobs.example>"
    letter["X-Tenant"] = tenant_id
    return letter


def deliver(letter: EmailMessage) -> None:
    """Hand *letter* to the mail server; returns when the server has taken it.

    Blocks, at most ANSWER_TIMEOUT_SECONDS for each answer. Raises Bury for a
    refusal with a 5xx code and Retry for one with a 4xx code.
    """
    host = os.environ.get("SMTP_HOST", "127.0.0.1")
    port = int(os.environ.get("SMTP_PORT", "2525"))
    with smtplib.SMTP(host, port, timeout=ANSWER_TIMEOUT_SECONDS) as server:
        try:
            server.send_message(letter)
        except smtplib.SMTPRecipientsRefused as refused:
            code, _ = next(iter(refused.recipients.values()))
            raise _refusal(code) from None
        except smtplib.SMTPResponseException as refused:
            raise _refusal(refused.smtp_code) from None


def _refusal(code: int) -> Bury | Retry:
    """What an answer code asks for; neither repeats the address, the payload has it."""
    if code >= 500:
        return Bury(f"the mail server refused the letter for good ({code})")
    return Retry(reason=f"the mail server refused the letter for now ({code})")
