"""One request as the operations see it, and the two ways it can end.

An operation is a function from a `Call` to an answer: a JSON object, or a
`Waiting` receive that will become one later. A refusal is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from async_jobs.embedded.sqs.faults import Faults, Kind
from async_jobs.embedded.sqs.message import Message
from async_jobs.embedded.sqs.moves import Moves
from async_jobs.embedded.sqs.params import Params
from async_jobs.embedded.sqs.queue import Queue
from async_jobs.embedded.sqs.refusal import Refused
from async_jobs.embedded.sqs.region import OWNER, Region

Json = dict[str, object]

MOST_ENTRIES = 10
_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class Call:
    """An operation, its parameters, and what it works on."""

    operation: str
    params: Params
    region: Region
    moves: Moves
    faults: Faults
    base_url: str
    now: float

    def queue(self) -> Queue:
        """The queue that QueueUrl names; raises Refused."""
        return self.region.by_url(self.params.text("QueueUrl"))

    def url_of(self, queue: Queue) -> str:
        return f"{self.base_url}/{OWNER}/{queue.name}"

    def fails(self, kind: Kind, queue: Queue) -> Refused | None:
        """The refusal of a fault of *kind* if it happens to one message now."""
        if not self.faults:
            return None
        fault = self.faults.fires(kind, self.operation, queue.name)
        return fault.refusal() if fault else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A receive that found nothing and may wait; *render* writes its answer."""

    queue: Queue
    limit: int
    visibility_seconds: int
    wait_seconds: float
    attempt_id: str | None
    render: Callable[[Sequence[Message]], Json]


def batch_entries(call: Call) -> list[tuple[str, Params]]:
    """The entries of a batch with their ids; raises Refused for a batch SQS refuses as a whole."""
    entries = call.params.entries("Entries")
    if not entries:
        raise Refused("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(entries) > MOST_ENTRIES:
        raise Refused(
            "TooManyEntriesInBatchRequest",
            f"A request has at most {MOST_ENTRIES} entries. You have sent {len(entries)}.",
        )
    ids = [entry.text("Id") for entry in entries]
    if not all(_ENTRY_ID.fullmatch(each) for each in ids):
        raise Refused(
            "InvalidBatchEntryId",
            "The id of an entry has 1 to 80 letters, digits, hyphens and underscores.",
        )
    if len(set(ids)) < len(ids):
        raise Refused("BatchEntryIdsNotDistinct", "Two entries have the same id.")
    return list(zip(ids, entries, strict=True))


def each_entry(call: Call, queue: Queue, work: Callable[[Params], Json]) -> Json:
    """Do *work* for every entry of a batch; a refused entry fails alone."""
    successful: list[Json] = []
    failed: list[Json] = []
    for entry_id, entry in batch_entries(call):
        try:
            if refusal := call.fails(Kind.PARTIAL_FAILURE, queue):
                raise refusal
            successful.append({"Id": entry_id, **work(entry)})
        except Refused as refused:
            failed.append(_failed_entry(entry_id, refused))
    return {"Successful": successful, "Failed": failed} if failed else {"Successful": successful}


def _failed_entry(entry_id: str, refused: Refused) -> Json:
    return {
        "Id": entry_id,
        "SenderFault": refused.is_senders_fault,
        "Code": refused.query_code,
        "Message": refused.text,
    }
