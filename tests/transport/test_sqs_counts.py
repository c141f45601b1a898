"""What a process counts of its talk with SQS: requests, and tickets that opened nothing."""

from __future__ import annotations

from store.factories import JobFactory

from async_jobs.telemetry.bus import Bus
from async_jobs.transport.sqs import SqsClient

from .line import SqsLine, take

LOOKS = 20


async def test_a_ticket_that_came_twice_opens_nothing_and_is_counted(
    sqs_line: SqsLine, jobs: JobFactory
) -> None:
    told: list[tuple[str, float, dict[str, str]]] = []
    bus = Bus()
    bus.measure = lambda name, value, **labels: told.append((name, value, labels))
    sqs_line.client = client = SqsClient(sqs_line.url, bus=bus)
    leased = await jobs.leased()
    await sqs_line.put(str(leased.job_id), str(leased.job_id))
    started = 0
    receiver = sqs_line.receiver()
    for _ in range(LOOKS):
        if started + client.void_tickets < 2:
            started += len(await take(receiver, looks=1))
    client.close()

    assert (started, client.void_tickets) == (1, 1)
    assert sum(value for name, value, _ in told if name == "async_jobs.tickets.void") == 1
    receives = [labels for _, _, labels in told if labels == {"operation": "ReceiveMessage"}]
    assert client.requests["ReceiveMessage"] == len(receives) > 0
    assert client.requests["SendMessage"] == 2
