"""A local mail server: takes letters, counts them by tenant, and refuses some on purpose.

`async-jobs dev` starts it as `python -m examples.mail_server --port N`, tests as
`async with mail_server(office)`. It listens on loopback unless told otherwise,
forwards nothing and keeps no letter, only counts. Recipients are refused by
their domain, see `domains`. `XCOUNT`, a command of its own, answers the counts
as JSON, so that the demo can check what the jobs claim.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import smtplib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from email import message_from_bytes
from email.policy import default
from typing import Annotated

import typer
from aiosmtpd.smtp import SMTP, Envelope, Session

from examples.domains import CLOSED, FLAKY, FULL

ACCEPTED = "250 OK"


@dataclass(frozen=True, slots=True)
class Counts:
    """Letters taken by tenant, recipients refused by domain, and letters that came again."""

    delivered_by_tenant: dict[str, int]
    refused_by_domain: dict[str, int]
    repeated: int

    @property
    def delivered(self) -> int:
        return sum(self.delivered_by_tenant.values())


class PostOffice:
    """Decides on recipients and counts letters; the SMTP server calls it."""

    def __init__(self, *, flaky_share: float = 0.3, work_seconds: float = 0.02) -> None:
        """Refuse *flaky_share* of the recipients at the flaky domain; each letter takes a while."""
        self.delivered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.repeated = 0
        self._flaky_share = flaky_share
        self._work_seconds = work_seconds
        self._seen: set[str] = set()

    async def handle_RCPT(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        """Take the recipient, or refuse it with the code of its domain."""
        domain = address.rpartition("@")[2].lower()
        answer = self._answer(domain)
        if answer == ACCEPTED:
            envelope.rcpt_tos.append(address)
        else:
            self.refused[domain] += 1
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take the letter, and count it once however often it comes."""
        await asyncio.sleep(self._work_seconds)
        content = envelope.original_content or b""
        letter = message_from_bytes(content, policy=default)
        message_id = str(letter["Message-ID"])
        if message_id in self._seen:
            self.repeated += 1
        else:
            self._seen.add(message_id)
            self.delivered[str(letter["X-Tenant"])] += 1
        return ACCEPTED

    def counts(self) -> Counts:
        """What `XCOUNT` answers."""
        return Counts(dict(self.delivered), dict(self.refused), self.repeated)

    def _answer(self, domain: str) -> str:
        if domain == CLOSED:
            return "550 5.1.1 Nobody here has a mailbox"
        if domain == FULL:
            return "452 4.2.2 The mailbox is full"
        if domain == FLAKY and random.random() < self._flaky_share:
            return "451 4.3.0 Try again later"
        return ACCEPTED


class _Server(SMTP):
    """SMTP with the one command more."""

    def __init__(self, office: PostOffice) -> None:
        super().__init__(office, hostname="localhost", ident="Example", enable_SMTPUTF8=True)
        self._office = office

    async def smtp_XCOUNT(self, arg: str) -> None:
        await self.push(f"250 {json.dumps(asdict(self._office.counts()))}")


@asynccontextmanager
async def mail_server(
    office: PostOffice, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """The server runs while inside; gives its port (a free one for port 0)."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Server(office), host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        # Not `async with`: from Python 3.12 on that waits for clients to hang up.
        server.close()


def ask_counts(host: str, port: int) -> Counts:
    """The counts of a running mail server; raises OSError if there is none. Blocks."""
    with smtplib.SMTP(host, port, timeout=10) as server:
        _, answer = server.docmd("XCOUNT")
    return Counts(**json.loads(answer))


async def _serve(host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with mail_server(PostOffice(), host=host, port=port) as taken:
        print(f"mail server on {host}:{taken}", flush=True)  # noqa: T201 # says where it is
        await stop.wait()


def main(
    port: Annotated[int, typer.Option(help="0 takes a free port and prints it.")] = 2525,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Run the mail server until SIGINT or SIGTERM."""
    asyncio.run(_serve(host, port))


if __name__ == "__main__":
    typer.run(main)
