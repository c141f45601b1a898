"""What is SQS's own: entries that fail by themselves, strange messages, long polls, outages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import boto3
import pytest
from moving_parts import Events, until
from store.factories import JobFactory, SettableClock, ticket

from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.errors import StoreUnavailable, TransportError
from async_jobs.models import Leased, StartedJob, Ticket
from async_jobs.runtime.loop import Loop
from async_jobs.telemetry.events import LoopFailed, LoopRecovered, MessageDropped
from async_jobs.transport import sqs
from async_jobs.transport.sqs import SqsClient, SqsReceiver, SqsSender
from async_jobs.worker.consumer import Consumer
from async_jobs.worker.slots import Slots

from .line import SqsLine, send, take
from .test_every_transport import lease


async def test_a_stale_message_is_dropped_when_its_job_was_leased_again(
    sqs_line: SqsLine, jobs: JobFactory, clock: SettableClock
) -> None:
    stale = await lease(jobs, 1)
    await send(sqs_line, stale)
    clock.advance(jobs.lease_seconds + 1)
    await sqs_line.store.rescue(10)
    fresh = await jobs.lease()

    assert await take(sqs_line.receiver()) == []
    await send(sqs_line, fresh)
    assert [job.lease_seq for job in await take(sqs_line.receiver())] == [2]


async def test_a_bare_job_id_starts_the_lease_that_the_job_has_now(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    leased = await jobs.leased()
    await sqs_line.put(str(leased.job_id), str(leased.job_id))

    assert [job.id for job in await take(sqs_line.receiver())] == [leased.job_id]


async def test_a_bare_id_of_a_job_without_a_lease_starts_nothing(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    waiting = await jobs.waiting()
    await sqs_line.put(str(waiting.id))

    assert await take(sqs_line.receiver()) == []
    assert (await jobs.row(waiting)).attempts == 0


STRANGE = [
    "hello",
    " ",
    "{}",
    '{"Type": "Notification", "Message": "of another application"}',
    '{"v": 1, "jobs": []}',
    '{"v": 1, "jobs": [["x", 1]]}',
    '{"v": 1, "jobs": [["019064c0-0000-7000-8000-000000000000", "1; DROP TABLE jobs"]]}',
    '{"v": 1, "jobs": [["019064c0-0000-7000-8000-000000000000", 99999999999999999999]]}',
    '{"v": 1, "jobs": 7',
    "[" * 5_000,
    "x" * 200_000,
]


async def test_strange_messages_are_told_once_each_and_removed(
    sqs_line: SqsLine, events: Events
) -> None:
    receiver = sqs_line.receiver()
    for body in STRANGE:
        await sqs_line.put(body)

    assert await take(receiver, looks=5) == []
    await receiver.close()
    assert len(events.of(MessageDropped)) == len(STRANGE)
    assert all(len(event.reason) < 100 for event in events.of(MessageDropped))
    assert (sqs_line.counts.visible, sqs_line.counts.in_flight) == (0, 0)


async def test_an_unknown_job_is_removed_from_the_queue(sqs_line: SqsLine) -> None:
    await sqs_line.put('{"v": 1, "jobs": [["019064c0-0000-7000-8000-000000000000", 1]]}')
    receiver = sqs_line.receiver()

    assert await take(receiver) == []
    await receiver.close()
    assert sqs_line.counts.in_flight == 0


async def test_a_message_is_deleted_beside_the_next_poll_not_after_it(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    await send(sqs_line, await lease(jobs, 2))
    receiver = sqs_line.receiver(long_poll_seconds=20)
    await receiver.wait(10)
    await receiver.start(10)
    poll = asyncio.ensure_future(receiver.wait(10))

    await until(lambda: sqs_line.counts.in_flight == 0)
    assert not poll.done()
    await sqs_line.put("done")
    await poll


async def test_a_message_stays_until_its_jobs_could_be_offered(
    sqs_line: SqsLine, jobs: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(sqs_line, await lease(jobs, 2), pack=2)
    receiver = sqs_line.receiver()
    await receiver.wait(10)
    with monkeypatch.context() as patch:
        patch.setattr(sqs_line.store, "start", _unavailable)
        with pytest.raises(StoreUnavailable):
            await receiver.start(10)
        await receiver.close()
    held = sqs_line.counts.in_flight

    started = await take(receiver, looks=1)
    await receiver.close()
    assert (held, len(started), sqs_line.counts.in_flight) == (1, 2, 0)


async def test_tickets_beyond_the_free_slots_are_held_and_started_next(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    leased = await lease(jobs, 5)
    await send(sqs_line, leased, pack=5)
    receiver = sqs_line.receiver()

    started = [job.id for slots in (2, 2, 2) for job in await take(receiver, slots, looks=1)]

    assert started == [job.job_id for job in leased]


async def test_held_tickets_that_are_handed_back_are_leasable_at_once(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    leased = await lease(jobs, 4)
    await send(sqs_line, leased, pack=4)
    receiver = sqs_line.receiver()
    await take(receiver, slots=1, looks=1)

    await receiver.hand_back()

    again = await jobs.lease()
    assert [job.job_id for job in again] == [job.job_id for job in leased[1:]]
    assert not any([(await jobs.row(job)).enqueue_failed for job in again])
    assert sqs_line.counts.in_flight == 0


async def test_a_hand_back_that_fails_is_made_good_by_the_next_one(
    sqs_line: SqsLine, jobs: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(sqs_line, await lease(jobs, 1))
    receiver = sqs_line.receiver()
    await receiver.wait(1)
    with monkeypatch.context() as patch:
        patch.setattr(sqs_line.store, "release", _unavailable)
        with pytest.raises(StoreUnavailable):
            await receiver.hand_back()

    await receiver.hand_back()

    assert len(await jobs.lease()) == 1


async def test_only_the_entries_that_failed_are_reported(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    leased = await lease(jobs, 12)
    sqs_line.server.faults.add("partial_failure", count=2, skip=3, queue=sqs_line.queue)

    report = await send(sqs_line, leased)

    assert len(report.failed) == 2
    assert "Internal" in report.reason
    assert sqs_line.counts.visible == 10
    started = await take(sqs_line.receiver(), slots=20)
    assert {job.id for job in started} == {job.job_id for job in leased} - {
        job.job_id for job in report.failed
    }


async def test_a_pack_that_failed_reports_every_job_in_it(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    sqs_line.server.faults.add("partial_failure", count=1, queue=sqs_line.queue)

    report = await send(sqs_line, await lease(jobs, 5), pack=3)

    assert len(report.failed) == 3


@pytest.mark.parametrize(
    ("kind", "reason"), [("throttle", "RequestThrottled"), ("access_denied", "AccessDenied")]
)
async def test_a_request_that_was_refused_reports_every_job_and_why(
    sqs_line: SqsLine, jobs: JobFactory, kind: str, reason: str
) -> None:
    leased = await lease(jobs, 11)
    sqs_line.server.faults.add(kind, queue=sqs_line.queue)

    report = await send(sqs_line, leased)

    assert len(report.failed) == 11
    assert reason in report.reason


async def test_a_short_throttle_is_overcome_without_a_word(
    sqs_line: SqsLine, jobs: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs, "TRIES", 3)
    client = SqsClient(sqs_line.url)
    sqs_line.server.faults.add("throttle", count=1, queue=sqs_line.queue)

    report = await SqsSender(client, sqs_line.url).send(await lease(jobs, 1), pack=1)

    client.close()
    assert not report.failed
    assert sqs_line.server.faults.fired("throttle") == 1


async def test_an_answer_that_got_lost_is_harmless(sqs_line: SqsLine, jobs: JobFactory) -> None:
    leased = await lease(jobs, 1)
    sqs_line.server.faults.add("after_send_reset", count=1, queue=sqs_line.queue)

    report = await send(sqs_line, leased)
    await sqs_line.store.release([ticket(job) for job in report.failed], enqueue_failed=True)
    await send(sqs_line, await jobs.lease())
    started = await take(sqs_line.receiver())

    assert len(report.failed) == 1
    assert [job.lease_seq for job in started] == [2]


async def test_a_receive_that_is_refused_raises(sqs_line: SqsLine) -> None:
    sqs_line.server.faults.add("throttle", queue=sqs_line.queue)

    with pytest.raises(TransportError, match="RequestThrottled"):
        await sqs_line.receiver().wait(1)


async def test_a_delete_that_is_refused_is_harmless(sqs_line: SqsLine, jobs: JobFactory) -> None:
    await send(sqs_line, await lease(jobs, 1))
    sqs_line.server.faults.add("throttle", operations=["DeleteMessageBatch"])
    receiver = sqs_line.receiver()
    started = await take(receiver)

    await receiver.close()
    sqs_line.server.advance(301)

    assert len(started) == 1
    assert await take(sqs_line.receiver()) == []


async def test_a_queue_that_does_not_exist_raises(sqs_line: SqsLine, jobs: JobFactory) -> None:
    url = f"{sqs_line.url}-missing"
    receiver = SqsReceiver(
        sqs_line.client,
        url,
        sqs_line.store,
        worker="ada",
        lease_seconds=30,
        long_poll_seconds=0,
        visibility_timeout_seconds=30,
        bus=sqs_line.events.bus,
    )

    with pytest.raises(TransportError, match=r"NonExistentQueue|QueueDoesNotExist"):
        await receiver.wait(1)
    report = await SqsSender(sqs_line.client, url).send(await lease(jobs, 1), pack=1)
    assert len(report.failed) == 1


async def test_a_loop_survives_a_server_that_is_away_and_comes_back(
    sqs_line: SqsLine, jobs: JobFactory, events: Events
) -> None:
    with SqsServer.in_thread() as server:
        port = server.port
        client = SqsClient(server.create_queue("mail"))
    url = f"http://127.0.0.1:{port}/000000000000/mail"
    away = SqsLine(sqs_line.store, events, sqs_line.server, client, "unused")
    away.url = url
    started: list[StartedJob] = []
    consumer = Consumer(
        away.receiver(long_poll_seconds=1),
        Slots(10),
        lambda job, asked_at: started.append(job),
        stopping=lambda: False,
    )
    loop = Loop("intake", consumer.tick, bus=events.bus)
    running = asyncio.ensure_future(loop.run())

    await until(lambda: events.of(LoopFailed))
    report = await SqsSender(client, url).send(await lease(jobs, 1), pack=1)
    assert len(report.failed) == 1
    with SqsServer.in_thread(port) as server:
        server.create_queue("mail")
        await SqsSender(client, url).send(report.failed, pack=1)
        await until(lambda: started)
        loop.stop()
        await running
        await consumer.stop()

    client.close()
    assert events.of(LoopRecovered)
    assert all(isinstance(event.error, TransportError) for event in events.of(LoopFailed))


async def test_a_poll_that_is_never_answered_is_given_up_soon_after_its_own_wait(
    sqs_line: SqsLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the longest wait there is: meanwhile messages wait for this worker."""
    monkeypatch.setattr(sqs, "POLL_ANSWER_SECONDS", 0.2)
    sqs_line.client = client = SqsClient(sqs_line.url, long_poll_seconds=0)
    sqs_line.server.faults.add("hang", queue=sqs_line.queue, operations=["ReceiveMessage"])

    async with asyncio.timeout(sqs.LONGEST_POLL_SECONDS / 2):
        with pytest.raises(TransportError, match="ReadTimeout"):
            await sqs_line.receiver(long_poll_seconds=0).wait(1)

    client.close()


async def test_sends_do_not_wait_for_long_polls(sqs_line: SqsLine, jobs: JobFactory) -> None:
    """However many queues a process waits for."""
    polls = [
        asyncio.ensure_future(sqs_line.receiver(long_poll_seconds=20).wait(1)) for _ in range(20)
    ]
    await until(lambda: sqs_line.server.waiting_receives() == 20)

    await send(sqs_line, await lease(jobs, 1))

    await until(lambda: sqs_line.server.waiting_receives() == 19)
    await sqs_line.put(*["enough"] * 19)
    await asyncio.gather(*polls)


async def test_at_most_the_messages_that_fit_the_free_slots_are_received(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    await send(sqs_line, await lease(jobs, 9))

    await sqs_line.receiver().wait(2)

    assert (sqs_line.counts.in_flight, sqs_line.counts.visible) == (2, 7)


async def test_fractions_of_seconds_are_rounded_up_for_sqs(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    await send(sqs_line, await lease(jobs, 1))
    receiver = sqs_line.receiver(visibility_timeout_seconds=0.5, long_poll_seconds=0.2)

    await receiver.wait(1)

    assert sqs_line.counts.in_flight == 1


def test_region_and_endpoint_come_from_the_url_where_aws_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    amazon = "https://sqs.eu-west-3.amazonaws.com/123456789012/mail"

    assert _place_of(amazon) == {"region_name": "eu-west-3"}
    assert _place_of("http://127.0.0.1:9324/1/mail") == {
        "region_name": "us-east-1",
        "endpoint_url": "http://127.0.0.1:9324",
    }


def test_what_aws_is_told_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "https://sqs.internal.example")

    assert _place_of("http://127.0.0.1:9324/1/mail") == {}


def _place_of(url: str) -> dict[str, object]:
    return sqs._place_of(url, boto3.Session())


async def _unavailable(
    tickets: Sequence[Ticket], **more: object
) -> list[StartedJob] | list[Leased] | int:
    raise StoreUnavailable
