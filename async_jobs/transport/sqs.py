"""SQS as the transport: the only file that knows AWS.

boto3 does the talking, in threads of its own, with the standard AWS
configuration (`AWS_ENDPOINT_URL_SQS`, roles, regions) left alone. Requests carry
ten entries at most and each entry may fail by itself (SQS: SendMessageBatch).
Long polls have their own client and threads: however many queues a process
waits for, its sends and deletes never wait for a poll.

When a message is deleted: as soon as its tickets have been offered to the table.
From then on the row holds the lease and the message has nothing left to say, so
a long attempt needs no visibility renewal. Only a receive whose tickets could
not be offered (database away) leaves its messages to their visibility time-out.

A long poll is never cut off: a server may answer it with messages that then
nobody sees until their visibility ends. Stopping waits for it.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from async_jobs.errors import TransportError
from async_jobs.failpoints import reach
from async_jobs.models import Leased, StartedJob, Ticket
from async_jobs.telemetry import traces
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import MessageDropped
from async_jobs.transport import wire
from async_jobs.transport.ports import SendReport, StartDesk

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

BATCH = 10
"""Entries in one request (SQS quota)."""
LONGEST_POLL_SECONDS = 20.0
"""SQS quota for WaitTimeSeconds."""
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 5.0
POLL_ANSWER_SECONDS = 3.0
"""How much later than its wait a poll may be answered: who waits longer waits for a silent server,
while messages wait for him."""
TRIES = 3
CALLING_THREADS = 8
POLLING_THREADS = 256
"""At most; a thread is started when a poll needs one."""

Answer = TypeVar("Answer")
_AWS_HOST = re.compile(r"sqs[.-]([a-z0-9-]+)\.(?:api\.)?amazonaws\.com(?:\.cn)?")


class SqsClient:
    """What one process needs to talk to one endpoint: two boto3 clients and their threads."""

    def __init__(
        self,
        queue_url: str,
        *,
        long_poll_seconds: float = LONGEST_POLL_SECONDS,
        bus: Bus | None = None,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.void_tickets = 0
        self._bus = bus or Bus()
        self._counting = Lock()
        # One session for all of them: each loads what it knows about SQS only once.
        session = boto3.Session()
        made = partial(_made, session, _place_of(queue_url, session))
        self._caller = made(READ_TIMEOUT_SECONDS, tries=TRIES, threads=CALLING_THREADS)
        # A poll that fails is not repeated here: the loop that polls backs off.
        longest = _whole_poll_seconds(long_poll_seconds) + POLL_ANSWER_SECONDS
        self._poller = made(longest, tries=1, threads=POLLING_THREADS)
        for client in (self._caller, self._poller):
            client.meta.events.register("before-send.sqs", self._count)
        self._calls = ThreadPoolExecutor(CALLING_THREADS, thread_name_prefix="async-jobs-sqs-call")
        self._polls = ThreadPoolExecutor(POLLING_THREADS, thread_name_prefix="async-jobs-sqs-poll")

    async def call(self, work: Callable[[SQSClient], Answer]) -> Answer:
        """Run *work*, which the server answers at once, in a thread; raises TransportError."""
        return await _run(self._calls, work, self._caller)

    async def poll(self, work: Callable[[SQSClient], Answer]) -> Answer:
        """Run *work*, which waits for messages, in a thread; raises TransportError."""
        return await _run(self._polls, work, self._poller)

    def count_void(self, tickets: int) -> None:
        """So many *tickets* opened nothing."""
        self.void_tickets += tickets
        if tickets and (measure := self._bus.measure) is not None:
            measure("async_jobs.tickets.void", tickets)

    def _count(self, event_name: str, **sent: object) -> None:
        """A request goes out, in whatever thread; botocore calls this for each."""
        operation = event_name.rpartition(".")[2]
        with self._counting:
            self.requests[operation] += 1
        if (measure := self._bus.measure) is not None:
            measure("async_jobs.sqs.requests", 1, operation=operation)

    def close(self) -> None:
        for threads in (self._calls, self._polls):
            threads.shutdown(wait=False, cancel_futures=True)
        self._caller.close()
        self._poller.close()


def _made(
    session: boto3.Session,
    place: Mapping[str, Any],
    read_timeout_seconds: float,
    *,
    tries: int,
    threads: int,
) -> SQSClient:
    client: SQSClient = session.client(
        "sqs",
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": tries},
            max_pool_connections=threads,
        ),
        **place,
    )
    return client


async def _run(
    threads: ThreadPoolExecutor, work: Callable[[SQSClient], Answer], client: SQSClient
) -> Answer:
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work, client)
    except (BotoCoreError, ClientError) as error:
        raise _translated(error) from error


def _whole_poll_seconds(long_poll_seconds: float) -> int:
    return math.ceil(min(long_poll_seconds, LONGEST_POLL_SECONDS))


def _place_of(queue_url: str, session: boto3.Session) -> dict[str, Any]:
    """Region and endpoint as the queue URL tells them, where the AWS configuration does not."""
    parts = urlsplit(queue_url)
    place: dict[str, Any] = {}
    aws_host = _AWS_HOST.fullmatch(parts.hostname or "")
    if not session.region_name:
        place["region_name"] = aws_host.group(1) if aws_host else "us-east-1"
    if not aws_host and not _endpoint_configured(session):
        place["endpoint_url"] = f"{parts.scheme}://{parts.netloc}"
    return place


def _endpoint_configured(session: boto3.Session) -> bool:
    region = session.region_name or "us-east-1"
    probe = session.client("sqs", region_name=region)
    try:
        return ".amazonaws.com" not in probe.meta.endpoint_url
    finally:
        probe.close()


def _translated(error: BotoCoreError | ClientError) -> TransportError:
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "unknown error")
        return TransportError("SQS", code.rpartition(".")[2])
    return TransportError("SQS", type(error).__name__)


class SqsSender:
    """Sends the tickets of one queue."""

    def __init__(self, client: SqsClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    async def send(self, leased: Sequence[Leased], *, pack: int) -> SendReport:
        packs = _chunks(leased, pack)
        reports = await asyncio.gather(
            *[self._send_batch(batch) for batch in _chunks(packs, BATCH)]
        )
        failed = [job for report in reports for job in report.failed]
        return SendReport(failed, next((report.reason for report in reports if report.reason), ""))

    async def depth(self) -> int:
        names: Any = ["ApproximateNumberOfMessages"]
        answer = await self._client.call(
            lambda sqs: sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=names)
        )
        return int(answer.get("Attributes", {}).get(names[0], 0))

    async def _send_batch(self, packs: Sequence[Sequence[Leased]]) -> SendReport:
        entries: Any = [
            {"Id": str(number), "MessageBody": wire.write(pack)}
            for number, pack in enumerate(packs)
        ]
        try:
            answer = await self._client.call(
                lambda sqs: sqs.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            )
        except TransportError as error:
            return SendReport([job for pack in packs for job in pack], str(error))
        refused = answer.get("Failed", [])
        failed = [job for entry in refused for job in packs[int(entry["Id"])]]
        return SendReport(failed, refused[0]["Code"] if refused else "")


@dataclass(slots=True)
class _Message:
    """A received message, how many of its tickets have not been offered yet, and when it came."""

    receipt: str
    unoffered: int
    received_ns: int


class SqsReceiver:
    """Receives the messages of one queue and starts their jobs.

    Tickets that came in with a message but found no free slot are held until
    `start` has room, or handed back.
    """

    def __init__(
        self,
        client: SqsClient,
        queue_url: str,
        desk: StartDesk,
        *,
        worker: str,
        lease_seconds: float,
        long_poll_seconds: float,
        visibility_timeout_seconds: float,
        bus: Bus,
    ) -> None:
        self._client = client
        self._queue_url = queue_url
        self._desk = desk
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._bus = bus
        self._long_poll_seconds = _whole_poll_seconds(long_poll_seconds)
        self._visibility_seconds = math.ceil(visibility_timeout_seconds)
        self._held: list[tuple[Ticket, _Message]] = []
        self._done: list[_Message] = []
        self._pack_seen = 1.0

    async def wait(self, slots: int) -> None:
        if self._held:
            return
        most = max(1, min(BATCH, int(slots / self._pack_seen)))
        # Side by side: a delete must hold up no start, nor wait until a long poll ends.
        polled, _ = await asyncio.gather(
            self._poll(most), self._delete_done(), return_exceptions=True
        )
        if isinstance(polled, BaseException):
            raise polled
        for message in polled:
            self._take_in(message)
        if polled:
            await reach("worker.after_receive")

    async def start(self, slots: int) -> list[StartedJob]:
        offered = self._held[:slots]
        if not offered:
            return []
        jobs = await self._desk.start(
            [ticket for ticket, _ in offered],
            worker=self._worker,
            lease_seconds=self._lease_seconds,
        )
        traces.received(jobs, {ticket.job_id: message.received_ns for ticket, message in offered})
        self._client.count_void(len(offered) - len(jobs))
        self._offered(offered)
        return jobs

    async def hand_back(self) -> None:
        held = list(self._held)
        tickets = [ticket for ticket, _ in held if ticket.lease_seq is not None]
        if tickets:
            await self._desk.release(tickets, enqueue_failed=False)
        self._offered(held)
        await self._delete_done()

    async def close(self) -> None:
        await self._delete_done()

    async def _poll(self, most: int) -> Sequence[MessageTypeDef]:
        answer = await self._client.poll(
            lambda sqs: sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=most,
                WaitTimeSeconds=self._long_poll_seconds,
                VisibilityTimeout=self._visibility_seconds,
            )
        )
        return answer.get("Messages", [])

    def _take_in(self, message: Mapping[str, Any]) -> None:
        try:
            tickets, reason = wire.read(message["Body"]), "the body names no job"
        except ValueError as error:
            tickets, reason = [], str(error)
        taken = _Message(message["ReceiptHandle"], len(tickets), time.time_ns())
        self._held += [(ticket, taken) for ticket in tickets]
        if tickets:
            self._pack_seen += 0.2 * (len(tickets) - self._pack_seen)
        else:
            name = self._queue_url.rpartition("/")[2]
            self._bus.emit(MessageDropped(queue=name, reason=reason))
            self._done.append(taken)

    def _offered(self, offered: Sequence[tuple[Ticket, _Message]]) -> None:
        del self._held[: len(offered)]
        for _, message in offered:
            message.unoffered -= 1
            if not message.unoffered:
                self._done.append(message)

    async def _delete_done(self) -> None:
        done, self._done = self._done, []
        if done:
            await reach("worker.before_delete")
        batches = [self._delete(batch) for batch in _chunks(done, BATCH)]
        await asyncio.gather(*batches)

    async def _delete(self, messages: Sequence[_Message]) -> None:
        entries: Any = [
            {"Id": str(number), "ReceiptHandle": message.receipt}
            for number, message in enumerate(messages)
        ]
        try:
            await self._client.call(
                lambda sqs: sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)
            )
        except TransportError:
            # Harmless: the message comes back after its visibility and finds the door shut.
            return


Item = TypeVar("Item")


def _chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
