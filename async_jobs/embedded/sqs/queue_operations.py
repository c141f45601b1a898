"""The operations on queues: create, find, list, describe, tag, delete, move dead letters.

Each function is one SQS operation: it reads the parameters, asks the region and
writes the answer.
"""

from __future__ import annotations

import base64
import binascii

from async_jobs.embedded.sqs.attributes import SETTABLE, QueueSettings
from async_jobs.embedded.sqs.call import Call, Json
from async_jobs.embedded.sqs.queue import Queue
from async_jobs.embedded.sqs.refusal import invalid_value, missing, unknown_attribute

MOST_LISTED = 1000
MOST_MOVES_LISTED = 10
FASTEST_MOVE = 500

_MEASURED = {
    "QueueArn",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
}


def create_queue(call: Call) -> Json:
    params = call.params
    queue = call.region.create(
        params.text("QueueName"), params.text_map("Attributes"), params.text_map("tags")
    )
    return {"QueueUrl": call.url_of(queue)}


def delete_queue(call: Call) -> Json:
    call.region.delete(call.queue())
    return {}


def get_queue_url(call: Call) -> Json:
    return {"QueueUrl": call.url_of(call.region.by_name(call.params.text("QueueName")))}


def list_queues(call: Call) -> Json:
    prefix = call.params.optional_text("QueueNamePrefix") or ""
    return _page(call, "QueueUrls", [q for q in call.region if q.name.startswith(prefix)])


def list_dead_letter_source_queues(call: Call) -> Json:
    # The answer's field begins with a small letter in the service model.
    return {"queueUrls": [], **_page(call, "queueUrls", call.region.sources_of(call.queue()))}


def _page(call: Call, field: str, queues: list[Queue]) -> Json:
    """One page of *queues* by name; only a request with MaxResults gets a NextToken."""
    limit = call.params.number("MaxResults", 1, MOST_LISTED)
    after = _read_token(call.params.optional_text("NextToken"))
    names = sorted(queue.name for queue in queues if queue.name > after)
    shown = names[: limit or MOST_LISTED]
    answer: Json = {}
    if shown:
        answer[field] = [call.url_of(call.region.by_name(name)) for name in shown]
    if limit and len(names) > limit:
        answer["NextToken"] = base64.b64encode(shown[-1].encode()).decode()
    return answer


def _read_token(token: str | None) -> str:
    try:
        return base64.b64decode(token or "", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_value("NextToken", "It is not a token of this server.") from None


def get_queue_attributes(call: Call) -> Json:
    queue = call.queue()
    names = call.params.texts("AttributeNames")
    known = SETTABLE | _MEASURED | {"FifoQueue", "All"}
    if not known.issuperset(names):
        raise unknown_attribute(known)
    if not names:
        return {}
    texts = {**queue.settings.texts(), **_measured(queue, call.now)}
    if "All" not in names:
        texts = {name: text for name, text in texts.items() if name in names}
    return {"Attributes": texts} if texts else {}


def _measured(queue: Queue, now: float) -> dict[str, str]:
    counts = queue.counts(now)
    return {
        "QueueArn": queue.arn,
        "CreatedTimestamp": str(int(queue.created_at)),
        "LastModifiedTimestamp": str(int(queue.changed_at)),
        "ApproximateNumberOfMessages": str(counts.visible),
        "ApproximateNumberOfMessagesNotVisible": str(counts.in_flight),
        "ApproximateNumberOfMessagesDelayed": str(counts.delayed),
    }


def set_queue_attributes(call: Call) -> Json:
    queue = call.queue()
    attributes = call.params.text_map("Attributes")
    if not attributes:
        raise missing("Attributes")
    fifo = {"FifoQueue": "true"} if queue.settings.is_fifo else {}
    call.region.check_redrive(queue, QueueSettings(queue.name, {**fifo, **attributes}))
    queue.change_settings(attributes, call.now)
    return {}


def tag_queue(call: Call) -> Json:
    call.queue().tags.update(call.params.text_map("Tags"))
    return {}


def untag_queue(call: Call) -> Json:
    queue = call.queue()
    for key in call.params.texts("TagKeys"):
        queue.tags.pop(key, None)
    return {}


def list_queue_tags(call: Call) -> Json:
    tags = call.queue().tags
    return {"Tags": dict(tags)} if tags else {}


def start_message_move_task(call: Call) -> Json:
    params = call.params
    move = call.moves.start(
        params.text("SourceArn"),
        params.optional_text("DestinationArn"),
        params.number("MaxNumberOfMessagesPerSecond", 1, FASTEST_MOVE),
    )
    return {"TaskHandle": move.handle}


def list_message_move_tasks(call: Call) -> Json:
    limit = call.params.number("MaxResults", 1, MOST_MOVES_LISTED) or 1
    moves = call.moves.latest(call.params.text("SourceArn"), limit)
    return {"Results": [move.describe() for move in moves]}


def cancel_message_move_task(call: Call) -> Json:
    move = call.moves.cancel(call.params.text("TaskHandle"))
    return {"ApproximateNumberOfMessagesMoved": move.moved}
