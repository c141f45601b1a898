"""From an HTTP request to an operation and back: the JSON 1.0 protocol of SQS.

The operation is named by `X-Amz-Target`. Signatures and credentials are not
looked at. Faults are applied here, before and after the operation; a refusal
becomes an error answer; a receive that found nothing becomes a long poll.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from async_jobs.embedded.sqs import message_operations as messages
from async_jobs.embedded.sqs import queue_operations as queues
from async_jobs.embedded.sqs.call import Call, Json, Waiting
from async_jobs.embedded.sqs.faults import Faults, Gate
from async_jobs.embedded.sqs.http import Reply, Request
from async_jobs.embedded.sqs.moves import Moves
from async_jobs.embedded.sqs.params import Params
from async_jobs.embedded.sqs.polls import LongPoll, LongPolls
from async_jobs.embedded.sqs.queue import Queue
from async_jobs.embedded.sqs.refusal import Refused
from async_jobs.embedded.sqs.region import Region

CONTENT_TYPE = "application/x-amz-json-1.0"
TARGET_PREFIX = "AmazonSQS."

Operation = Callable[[Call], Json | Waiting]

OPERATIONS: Mapping[str, Operation] = {
    "CancelMessageMoveTask": queues.cancel_message_move_task,
    "ChangeMessageVisibility": messages.change_message_visibility,
    "ChangeMessageVisibilityBatch": messages.change_message_visibility_batch,
    "CreateQueue": queues.create_queue,
    "DeleteMessage": messages.delete_message,
    "DeleteMessageBatch": messages.delete_message_batch,
    "DeleteQueue": queues.delete_queue,
    "GetQueueAttributes": queues.get_queue_attributes,
    "GetQueueUrl": queues.get_queue_url,
    "ListDeadLetterSourceQueues": queues.list_dead_letter_source_queues,
    "ListMessageMoveTasks": queues.list_message_move_tasks,
    "ListQueueTags": queues.list_queue_tags,
    "ListQueues": queues.list_queues,
    "PurgeQueue": messages.purge_queue,
    "ReceiveMessage": messages.receive_message,
    "SendMessage": messages.send_message,
    "SendMessageBatch": messages.send_message_batch,
    "SetQueueAttributes": queues.set_queue_attributes,
    "StartMessageMoveTask": queues.start_message_move_task,
    "TagQueue": queues.tag_queue,
    "UntagQueue": queues.untag_queue,
}

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Dispatcher:
    """Answers the requests of SQS clients."""

    def __init__(
        self,
        region: Region,
        faults: Faults,
        loop: asyncio.AbstractEventLoop,
        *,
        requests: Counter[str],
    ) -> None:
        self._region = region
        self._faults = faults
        self._requests = requests
        self._loop = loop
        self._moves = Moves(region, loop)
        self._polls: dict[Queue, LongPolls] = {}
        region.on_new_queue = self._watch
        for queue in region:
            self._watch(queue)

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer *request*, now or when its fault, long poll or delay ends."""
        try:
            call = self._call_of(request)
            self._requests[call.operation] += 1
            gate = self._gate_of(call)
            if gate is None:
                self._run(call, reply)
            else:
                self._pass(call, reply, gate)
        except Refused as refused:
            _refuse(reply, refused)

    def waiting(self) -> int:
        """How many receives are waiting for a message."""
        return sum(len(polls) for polls in self._polls.values())

    def serve_soon(self) -> None:
        """Look for messages for all waiting receives: time or queues were changed from outside."""
        for polls in self._polls.values():
            polls.serve_soon()

    def close(self) -> None:
        """Answer every waiting receive with nothing and stop every move."""
        self._moves.close()
        for polls in self._polls.values():
            polls.finish_all()

    def _watch(self, queue: Queue) -> None:
        self._polls[queue] = LongPolls(queue, self._region.clock, self._loop)

    def _call_of(self, request: Request) -> Call:
        target = request.headers.get("x-amz-target", "")
        operation = target.removeprefix(TARGET_PREFIX)
        if request.method != "POST" or operation == target or operation not in OPERATIONS:
            raise Refused(
                "UnknownOperationException",
                "Send a POST with X-Amz-Target: AmazonSQS.<operation>; this server speaks the "
                f"JSON protocol and knows {', '.join(OPERATIONS)}.",
            )
        return Call(
            operation=operation,
            params=Params(_read_object(request.content)),
            region=self._region,
            moves=self._moves,
            faults=self._faults,
            base_url=f"http://{request.headers.get('host', 'localhost')}",
            now=self._region.clock.now(),
        )

    def _gate_of(self, call: Call) -> Gate | None:
        if not self._faults:
            return None
        url = call.params.optional_text("QueueUrl")
        name = url.rpartition("/")[2] if url else call.params.optional_text("QueueName")
        return self._faults.gate(call.operation, name)

    def _pass(self, call: Call, reply: Reply, gate: Gate) -> None:
        if gate.delay_seconds:
            delay, gate.delay_seconds = gate.delay_seconds, 0.0
            self._loop.call_later(delay, self._pass_later, call, reply, gate)
        elif gate.resets:
            reply.reset()
        elif gate.refusal is not None:
            raise gate.refusal
        elif not gate.hangs:
            self._run_shuffled(call, reply, gate)

    def _pass_later(self, call: Call, reply: Reply, gate: Gate) -> None:
        if not reply.is_wanted:
            return
        try:
            self._pass(call, reply, gate)
        except Refused as refused:
            _refuse(reply, refused)

    def _run_shuffled(self, call: Call, reply: Reply, gate: Gate) -> None:
        if gate.shuffles is not None:
            queue = call.queue()
            queue.promote(self._region.clock.now())
            queue.shuffle(gate.shuffles)
        self._run(call, reply, is_cut_off=gate.resets_after)

    def _run(self, call: Call, reply: Reply, *, is_cut_off: bool = False) -> None:
        answer = OPERATIONS[call.operation](call)
        if is_cut_off:
            reply.reset()
        elif isinstance(answer, Waiting):
            self._wait(answer, reply)
        else:
            _answer(reply, answer)

    def _wait(self, waiting: Waiting, reply: Reply) -> None:
        poll = LongPoll(
            limit=waiting.limit,
            visibility_seconds=waiting.visibility_seconds,
            wait_seconds=waiting.wait_seconds,
            deliver=lambda found: _answer(reply, waiting.render(found)),
            is_wanted=lambda: reply.is_wanted,
            attempt_id=waiting.attempt_id,
        )
        polls = self._polls[waiting.queue]
        polls.wait(poll)
        reply.on_gone = partial(polls.cancel, poll)


def _read_object(content: bytes) -> dict[str, object]:
    try:
        values = json.loads(content or b"{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise Refused("SerializationException", "The request is not a JSON object in UTF-8.")
    return values


def _answer(reply: Reply, answer: Json) -> None:
    reply.send(200, _encode(answer).encode(), CONTENT_TYPE)


def _refuse(reply: Reply, refused: Refused) -> None:
    fault = "Sender" if refused.is_senders_fault else "Receiver"
    content = _encode({"__type": refused.type_name, "message": refused.text}).encode()
    headers = {"x-amzn-query-error": f"{refused.query_code};{fault}"}
    reply.send(refused.shape.status, content, CONTENT_TYPE, headers)
