"""One transport from end to end, so that one suite can ask every transport the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from moving_parts import Events
from store.factories import LEASE_SECONDS

from async_jobs.embedded.sqs.queue import Counts
from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.models import Leased, StartedJob
from async_jobs.store.jobs import JobStore
from async_jobs.transport.ports import Receiver, Sender, SendReport
from async_jobs.transport.postgres import PostgresReceiver, PostgresSender
from async_jobs.transport.sqs import SqsClient, SqsReceiver, SqsSender

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

QUEUE = "mail-queue"


class Line(Protocol):
    """A sender, and as many receivers as a test asks for."""

    store: JobStore
    sender: Sender

    def receiver(self, worker: str = "worker-1") -> Receiver: ...

    def lose(self) -> None:
        """What is on its way gets lost."""


class PostgresLine:
    def __init__(self, store: JobStore, events: Events) -> None:
        self.store = store
        self.sender: Sender = PostgresSender()

    def receiver(
        self, worker: str = "worker-1", *, poll_interval_seconds: float = 0.02
    ) -> PostgresReceiver:
        return PostgresReceiver(
            self.store,
            [QUEUE],
            worker=worker,
            lease_seconds=LEASE_SECONDS,
            poll_interval_seconds=poll_interval_seconds,
        )

    def lose(self) -> None:
        """Nothing is on its way: the lease is the message."""


class SqsLine:
    def __init__(
        self, store: JobStore, events: Events, server: SqsServer, client: SqsClient, queue: str
    ) -> None:
        self.store = store
        self.events = events
        self.server = server
        self.queue = queue
        self.url = server.create_queue(queue)
        self.client = client
        self.sender: Sender = SqsSender(self.client, self.url)

    def receiver(
        self,
        worker: str = "worker-1",
        *,
        long_poll_seconds: float = 0.0,
        visibility_timeout_seconds: float = 300.0,
    ) -> SqsReceiver:
        return SqsReceiver(
            self.client,
            self.url,
            self.store,
            worker=worker,
            lease_seconds=LEASE_SECONDS,
            long_poll_seconds=long_poll_seconds,
            visibility_timeout_seconds=visibility_timeout_seconds,
            bus=self.events.bus,
        )

    @property
    def counts(self) -> Counts:
        return self.server.messages(self.queue)

    async def put(self, *bodies: str) -> None:
        """Send messages as somebody else would."""
        for body in bodies:
            await self.client.call(partial(self._put, body))

    def _put(self, body: str, client: SQSClient) -> object:
        return client.send_message(QueueUrl=self.url, MessageBody=body)

    def lose(self) -> None:
        self.server.wipe(self.queue)


async def send(line: Line, leased: Sequence[Leased], *, pack: int = 1) -> SendReport:
    return await line.sender.send(leased, pack=pack)


async def take(receiver: Receiver, slots: int = 10, *, looks: int = 3) -> list[StartedJob]:
    """What *receiver* starts in a few looks with this many slots free in each."""
    started: list[StartedJob] = []
    for _ in range(looks):
        await receiver.wait(slots)
        started += await receiver.start(slots)
    return started
