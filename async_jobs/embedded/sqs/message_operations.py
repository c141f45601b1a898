"""The operations on messages: send, receive, delete, change visibility, purge.

Each function is one SQS operation: it reads the parameters, asks the queue model
and writes the answer. Batches differ from single requests only in that a refused
entry fails alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from async_jobs.embedded.sqs.call import Call, Json, Waiting, batch_entries, each_entry
from async_jobs.embedded.sqs.faults import Kind
from async_jobs.embedded.sqs.message import (
    MAX_MESSAGE_BYTES,
    Attribute,
    Draft,
    Message,
    check_attributes,
    check_text,
    md5_of_attributes,
    select_attributes,
    size_of,
)
from async_jobs.embedded.sqs.params import Params
from async_jobs.embedded.sqs.queue import LONGEST_VISIBILITY_SECONDS, Queue
from async_jobs.embedded.sqs.refusal import Refused, invalid_value, missing, unknown_attribute

MOST_RECEIVED = 10
LONGEST_WAIT_SECONDS = 20
LONGEST_DELAY_SECONDS = 900
SENDER_ID = "AIDAEMBEDDEDSQSSERVER"
TRACE_HEADER = "AWSTraceHeader"

_PRINTABLE_ID = re.compile(r"[!-~]{1,128}")


def send_message(call: Call) -> Json:
    return _send(call, call.queue(), call.params)


def send_message_batch(call: Call) -> Json:
    queue = call.queue()
    entries = batch_entries(call)
    total = sum(
        size_of(entry.text("MessageBody"), entry.attributes("MessageAttributes"))
        for _, entry in entries
    )
    if total > MAX_MESSAGE_BYTES:
        raise Refused(
            "BatchRequestTooLong",
            f"A batch is at most {MAX_MESSAGE_BYTES} bytes long. You have sent {total} bytes.",
        )
    if queue.settings.is_fifo:
        # What a FIFO queue misses in one entry refuses the batch, so nothing may be stored yet.
        for _, entry in entries:
            _check_fifo(queue, entry)
    return each_entry(call, queue, lambda entry: _send(call, queue, entry))


def _send(call: Call, queue: Queue, params: Params) -> Json:
    draft = _draft(queue, params)
    message = queue.send(draft, call.now, copies=_copies(call, queue))
    answer: Json = {"MessageId": message.message_id, "MD5OfMessageBody": message.md5_of_body}
    if draft.attributes:
        answer["MD5OfMessageAttributes"] = md5_of_attributes(draft.attributes)
    if draft.trace_header is not None:
        answer["MD5OfMessageSystemAttributes"] = md5_of_attributes(
            {TRACE_HEADER: {"DataType": "String", "StringValue": draft.trace_header}}
        )
    if message.sequence_number is not None:
        answer["SequenceNumber"] = message.sequence_number
    return answer


def _copies(call: Call, queue: Queue) -> int:
    """How many copies are stored: 1, unless a fault loses or doubles the message."""
    if not call.faults:
        return 1
    if call.fails(Kind.LOSE, queue):
        return 0
    return 2 if call.fails(Kind.DUPLICATE, queue) else 1


def _draft(queue: Queue, params: Params) -> Draft:
    body = params.text("MessageBody")
    check_text(body)
    attributes = params.attributes("MessageAttributes")
    if attributes:
        check_attributes(attributes)
    most_bytes = queue.settings.max_message_bytes
    if size_of(body, attributes) > most_bytes:
        raise invalid_value("MessageBody", f"A message must be shorter than {most_bytes} bytes.")
    delay = params.number("DelaySeconds", 0, LONGEST_DELAY_SECONDS)
    deduplication_id = _printable(params, "MessageDeduplicationId")
    if queue.settings.is_fifo:
        _check_fifo(queue, params)
        if delay:
            raise invalid_value("DelaySeconds", "A FIFO queue has one delay for all messages.")
    elif deduplication_id is not None:
        raise invalid_value("MessageDeduplicationId", "It is for FIFO queues only.")
    return Draft(
        body=body,
        attributes=attributes,
        trace_header=_trace_header(params.attributes("MessageSystemAttributes")),
        group_id=_printable(params, "MessageGroupId"),
        deduplication_id=deduplication_id,
        delay_seconds=None if queue.settings.is_fifo else delay,
    )


def _printable(params: Params, name: str) -> str | None:
    text = params.optional_text(name)
    if text is not None and not _PRINTABLE_ID.fullmatch(text):
        raise invalid_value(name, "It has 1 to 128 letters, digits and punctuation marks.")
    return text


def _check_fifo(queue: Queue, params: Params) -> None:
    """Raise Refused if a message for a FIFO queue lacks its group or deduplication id."""
    if params.optional_text("MessageGroupId") is None:
        raise missing("MessageGroupId")
    deduplication_id = params.optional_text("MessageDeduplicationId")
    if deduplication_id is None and not queue.settings.deduplicates_by_content:
        raise invalid_value(
            "MessageDeduplicationId",
            "The queue should either have ContentBasedDeduplication enabled or the message a "
            "MessageDeduplicationId.",
        )


def _trace_header(attributes: Mapping[str, Attribute]) -> str | None:
    if not attributes:
        return None
    header = attributes.get(TRACE_HEADER, {})
    if len(attributes) > 1 or header.get("DataType") != "String" or "StringValue" not in header:
        raise invalid_value(
            "MessageSystemAttributes", f"The only one is {TRACE_HEADER}, of type String."
        )
    return header["StringValue"]


def receive_message(call: Call) -> Json | Waiting:
    queue, params = call.queue(), call.params
    settings = queue.settings
    limit = params.number("MaxNumberOfMessages", 1, MOST_RECEIVED) or 1
    wait = params.number("WaitTimeSeconds", 0, LONGEST_WAIT_SECONDS)
    wait_seconds = settings.wait_seconds if wait is None else wait
    visibility = params.number("VisibilityTimeout", 0, LONGEST_VISIBILITY_SECONDS)
    visibility_seconds = settings.visibility_seconds if visibility is None else visibility
    attempt_id = _printable(params, "ReceiveRequestAttemptId")
    render = _renderer(queue, params)
    if queue.is_full and not settings.is_fifo and not wait_seconds:
        raise Refused("OverLimit", "Too many messages of the queue are in flight.")
    messages = queue.receive(limit, visibility_seconds, call.now, attempt_id=attempt_id)
    if messages or not wait_seconds:
        return render(messages)
    return Waiting(
        queue=queue,
        limit=limit,
        visibility_seconds=visibility_seconds,
        wait_seconds=wait_seconds,
        attempt_id=attempt_id,
        render=render,
    )


def _renderer(queue: Queue, params: Params) -> Callable[[Sequence[Message]], Json]:
    """How this receive wants its messages written."""
    system_names = {*params.texts("AttributeNames"), *params.texts("MessageSystemAttributeNames")}
    names = params.texts("MessageAttributeNames")
    if system_names - _SYSTEM_ATTRIBUTES.keys() - {"All"}:
        raise unknown_attribute(_SYSTEM_ATTRIBUTES)

    def render(messages: Sequence[Message]) -> Json:
        written = [_written(queue, message, system_names, names) for message in messages]
        return {"Messages": written} if written else {}

    return render


def _written(queue: Queue, message: Message, system_names: set[str], names: Sequence[str]) -> Json:
    draft = message.draft
    written: Json = {
        "MessageId": message.message_id,
        "ReceiptHandle": queue.handle_of(message),
        "MD5OfBody": message.md5_of_body,
        "Body": draft.body,
    }
    if system_names:
        wanted = _SYSTEM_ATTRIBUTES.keys() if "All" in system_names else system_names
        values = {name: _SYSTEM_ATTRIBUTES[name](message) for name in wanted}
        written["Attributes"] = {name: text for name, text in values.items() if text is not None}
    if names and (chosen := select_attributes(draft.attributes, names)):
        written["MessageAttributes"] = chosen
        written["MD5OfMessageAttributes"] = md5_of_attributes(chosen)
    return written


_SYSTEM_ATTRIBUTES: Mapping[str, Callable[[Message], str | None]] = {
    "SenderId": lambda message: SENDER_ID,
    "SentTimestamp": lambda message: _milliseconds(message.sent_at),
    "ApproximateReceiveCount": lambda message: str(message.receive_count),
    "ApproximateFirstReceiveTimestamp": lambda message: _milliseconds(message.first_received_at),
    "SequenceNumber": lambda message: message.sequence_number,
    "MessageDeduplicationId": lambda message: message.draft.deduplication_id,
    "MessageGroupId": lambda message: message.draft.group_id,
    TRACE_HEADER: lambda message: message.draft.trace_header,
    "DeadLetterQueueSourceArn": lambda message: message.source_arn,
}


def _milliseconds(at: float | None) -> str | None:
    return None if at is None else str(int(at * 1000))


def delete_message(call: Call) -> Json:
    return _delete(call, call.queue(), call.params)


def delete_message_batch(call: Call) -> Json:
    queue = call.queue()
    return each_entry(call, queue, lambda entry: _delete(call, queue, entry))


def _delete(call: Call, queue: Queue, params: Params) -> Json:
    handle = params.text("ReceiptHandle")
    if call.fails(Kind.IGNORE_DELETE, queue):
        queue.check_handle(handle)
    else:
        queue.delete(handle, call.now)
    return {}


def change_message_visibility(call: Call) -> Json:
    return _change_visibility(call, call.queue(), call.params)


def change_message_visibility_batch(call: Call) -> Json:
    queue = call.queue()
    return each_entry(call, queue, lambda entry: _change_visibility(call, queue, entry))


def _change_visibility(call: Call, queue: Queue, params: Params) -> Json:
    handle = params.text("ReceiptHandle")
    seconds = params.number("VisibilityTimeout", 0, LONGEST_VISIBILITY_SECONDS)
    if seconds is None:
        raise missing("VisibilityTimeout")
    queue.change_visibility(handle, seconds, call.now)
    return {}


def purge_queue(call: Call) -> Json:
    call.queue().purge(call.now)
    return {}
